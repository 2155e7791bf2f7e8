"""The command line: help everywhere, one clear line for bad input, nothing left behind by it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from memo_habitat import __version__
from memo_habitat.cli import doctor
from memo_habitat.cli.main import main
from memo_habitat.config.compose import update_config
from memo_habitat.errors import UserError, WorkerError
from memo_habitat.evaluation.records import iterate_records
from memo_habitat.trainer.run_dir import RunFolder, create_run, open_run, plan_run

STUDIO = "--config-name=extobjnav/studio"
COMMANDS = [
    *(
        "demo",
        "quickstart",
        "train",
        "eval",
        "sweep",
        "watch",
        "report",
        "export",
        "plan",
        "doctor",
        "drill",
    ),
    *(
        "scenes",
        "scenes generate",
        "scenes episodes",
        "scenes show",
        "data",
        "data get",
        "data check",
    ),
]


def fail(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail with status 2; returns its one line of stderr."""
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("memo-habitat")
    assert "Traceback" not in captured.err
    return captured.err


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, so that what is left behind can be seen."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(capsys, command):
    assert main([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: memo-habitat {command}".rstrip())


def test_help_and_the_folder_of_a_run_import_nothing_heavy():
    code = (
        "import sys; from memo_habitat.cli.main import main; main(['train', '--help']); "
        "import memo_habitat.trainer.launch; "
        "print(sorted({'torch', 'habitat', 'numpy', 'hydra', 'omegaconf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_completion_offers_commands_and_configs(capsys, monkeypatch):
    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_MEMO_HABITAT_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        with pytest.raises(SystemExit):
            main([])
        return capsys.readouterr().out.split()

    assert complete("memo-habitat tr") == ["train"]
    assert "extobjnav/studio" in complete("memo-habitat train --config-name extobjnav/st")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"memo-habitat {__version__}\n"


def test_overrides_may_stand_anywhere(capsys):
    before, after = "habitat.seed=77", "habitat_baselines.num_updates=78"
    assert main(["train", before, STUDIO, "--cfg", after, "--root", "there"]) == 0
    text = capsys.readouterr().out
    assert "  seed: 77\n" in text
    assert "  num_updates: 78\n" in text
    assert "no/such/run" in fail(capsys, "eval", before, "no/such/run", after)


def test_the_list_of_configs_has_no_base(capsys):
    assert main(["train", "--list"]) == 0
    names = capsys.readouterr().out.split()
    assert "extobjnav/studio" in names
    assert not any(name.endswith("base") for name in names)


def test_the_composed_config_is_printed(capsys):
    assert main(["train", STUDIO, "--cfg", "habitat.seed=77"]) == 0
    assert "seed: 77" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["extobjnav/studio", "extobjnav/apartments"])
def test_the_order_of_actions_and_the_trials_fit_the_trainer(name):
    from memo_habitat.config.compose import compose_config

    composed = compose_config(name)
    assert list(composed.habitat.task.actions) == [
        *("stop", "move_forward", "turn_left", "turn_right", "look_up", "look_down")
    ]
    trial, updates = composed.habitat.task.trial_steps, composed.habitat_baselines.rl.ppo
    assert trial % updates.updates_per_trial == 0


@pytest.mark.parametrize("name", ["extobjnav/studio", "nav/ppo_pointnav_studio"])
def test_every_path_of_a_run_derives_from_its_folder(name):
    from memo_habitat.config.compose import compose_config

    baselines = compose_config(name, ["run_dir=/somewhere/else"]).habitat_baselines
    for key in ("tensorboard_dir", "checkpoint_folder", "eval_ckpt_path_dir", "log_file"):
        assert baselines[key].startswith("/somewhere/else/")


def test_each_config_names_its_launch_line(checkout):
    from memo_habitat.config.compose import known_configs

    for name in known_configs():
        text = (checkout / "habitat_configs" / f"{name}.yaml").read_text()
        assert text.startswith("# @package _global_\n")
        assert re.search(rf"memo-habitat train --config-name={name}\b", text)
        assert re.search(rf"habitat-baselines --config-name={name}\b", text)


BAD_INPUT = {
    "no command": ((), "memo-habitat: Missing command"),
    "unknown command": (("tran",), "Did you mean 'train'"),
    "unknown option": (("train", STUDIO, "--sedd", "1"), "--sedd"),
    "option of another command": (
        ("sweep", STUDIO, "--workers", "2"),
        "memo-habitat sweep: No such option: --workers (see memo-habitat sweep --help)",
    ),
    "option of another action": (
        ("scenes", "show", "nowhere", "--house", "0", "--out", "a.png", "--houses", "2"),
        "(see memo-habitat scenes show --help)",
    ),
    "value that is no number": (("train", STUDIO, "--workers", "many"), "--workers"),
    "seed of a training as an option": (("train", STUDIO, "--seed", "1"), "as habitat.seed=1"),
    "seed of an evaluation as an option": (
        ("eval", "runs/none", "--seed=1"),
        "as habitat_baselines.evaluator.seed=1",
    ),
    "neither config nor run": (("train",), "--config-name"),
    "a config and a run": (("train", STUDIO, "--resume", "runs/none"), "give one of"),
    "folder of a run that has one": (
        ("train", "--resume", "runs/none", "--out", "new"),
        "--out new goes with --config-name",
    ),
    "two places": (("train", STUDIO, "--root", "a", "--out", "b"), "--root a has no effect"),
    "unknown config": (
        ("train", "--config-name=extobjnav/memo_studoi"),
        "did you mean extobjnav/studio",
    ),
    "unknown key": (("train", STUDIO, "habitat.sed=1"), "did you mean habitat.seed"),
    "key without its branch": (
        ("train", STUDIO, "memory.summary_length=4"),
        "habitat_baselines.rl.memory.summary_length",
    ),
    "key by a longer name": (
        ("train", STUDIO, "habitat_baselines.rl.ppo.learning_rate=1e-4"),
        "did you mean habitat_baselines.rl.ppo.lr, habitat_baselines.rl.ppo.lr_",
    ),
    "misspelt key among others of its branch": (
        ("train", STUDIO, "habitat_baselines.rl.ppo.gama=1"),
        "did you mean habitat_baselines.rl.ppo.gamma?\n",
    ),
    "misspelt key that is near to one of another branch": (
        ("train", STUDIO, "habitat_baselines.rl.memory.widht=3"),
        "did you mean habitat_baselines.rl.memory.width?\n",
    ),
    "misspelt branch": (
        ("train", STUDIO, "habitat_baselines.rl.pppo.lr=1"),
        "did you mean habitat_baselines.rl.ppo.lr,",
    ),
    "key like no other": (("train", STUDIO, "habitat_baselines.rl.ppo.zzz=1"), "--cfg` prints"),
    "folder of a new run as a key": (
        ("train", STUDIO, "run_dir=there"),
        "run_dir=there: use --out DIR, or --root",
    ),
    "folder of a run as a key": (("train", "--resume", "there", "+run_dir=x"), "stays in there"),
    "value of another kind": (("train", STUDIO, "habitat.seed=abc"), "Integer"),
    "unreadable override": (("train", STUDIO, "habitat.seed=[1"), "habitat.seed=[1"),
    "unknown option of a group": (("train", STUDIO, "habitat/task=pointnaw"), "pointnav"),
    "summary as long as its segment": (
        ("train", STUDIO, "habitat_baselines.rl.memory.summary_length=64"),
        "habitat_baselines.rl.memory.summary_length 64",
    ),
    "updates that do not divide the trial": (
        ("train", STUDIO, "habitat_baselines.rl.ppo.updates_per_trial=7"),
        "updates_per_trial=7",
    ),
    "learning rate below 0": (
        ("train", STUDIO, "habitat_baselines.rl.ppo.lr=-1"),
        "habitat_baselines.rl.ppo.lr=-1.0: give 0 or more",
    ),
    "unknown trainer": (
        ("train", STUDIO, "habitat_baselines.trainer_name=mem"),
        "habitat_baselines.trainer_name='mem': choose one of ddppo, ",
    ),
    "trials of no steps": (
        ("train", STUDIO, "habitat.task.trial_steps=0"),
        "habitat.task.trial_steps=0: at least 1 is needed",
    ),
    "checkpoints elsewhere": (
        ("train", STUDIO, "habitat_baselines.checkpoint_folder=there"),
        "habitat_baselines.checkpoint_folder=there: a run keeps its checkpoints in its own folder",
    ),
    "unknown optimiser": (
        ("train", STUDIO, "habitat_baselines.rl.ppo.optimizer=sgd"),
        "habitat_baselines.rl.ppo.optimizer='sgd': choose one of adam, muon",
    ),
    "unknown sensor": (
        ("train", STUDIO, "habitat.task.lab_sensors.trial_gps_sensor.type=TrialGPSensor"),
        "habitat.task.lab_sensors.trial_gps_sensor.type='TrialGPSensor': no class is registered by "
        "this name; did you mean TrialGPSSensor",
    ),
    "unknown task": (
        ("train", STUDIO, "habitat.task.type=Foo"),
        "habitat.task.type='Foo': no class is registered by this name; is the module",
    ),
    "Habitat's trainer with our updater": (
        ("train", STUDIO, "habitat_baselines.trainer_name=ppo"),
        "habitat_baselines.updater_name='MemoPPO' is none of the trainer ppo's: choose one of DDP",
    ),
    "updater of another trainer": (
        ("train", STUDIO, "habitat_baselines.updater_name=PPO"),
        "habitat_baselines.updater_name='PPO' is none of the trainer memo's: choose one of MemoPPO",
    ),
    "storage of another trainer": (
        ("train", STUDIO, "habitat_baselines.rollout_storage_name=RolloutStorage"),
        "choose one of TrialStorage",
    ),
    "unknown policy": (
        ("train", STUDIO, "habitat_baselines.rl.policy.main_agent.name=foo"),
        "habitat_baselines.rl.policy.main_agent.name='foo': choose one of MemoPolicy, or name the",
    ),
    "unknown policy of Habitat's own trainer": (
        (
            *("train", "--config-name=nav/ppo_pointnav_studio"),
            "habitat_baselines.rl.policy.main_agent.name=foo",
        ),
        "choose one of HierarchicalPolicy, PointNavBaselinePolicy, ",
    ),
    "unknown environments": (
        ("train", STUDIO, "habitat_baselines.vector_env_factory._target_=foo.Bar"),
        "habitat_baselines.vector_env_factory._target_=foo.Bar: there is no such class; choose",
    ),
    "simulator of the missing Habitat-Sim": (
        ("train", STUDIO, "habitat.simulator.type=Sim-v0"),
        "conda install habitat-sim",
    ),
    "no such run": (("eval", "runs/none"), "runs/none"),
    "no such run to resume": (("train", "--resume", "runs/none"), "runs/none"),
    "no such run to report": (("report", "runs/none"), "runs/none"),
    "unknown agent": (("eval", "runs/none", "--agent", "orakel"), "orakel"),
    "no such sweep": (("sweep", "--resume", "runs/none"), "runs/none"),
    "no config of that variant": (("sweep", STUDIO, "--variants", "mamba"), "there are ac, fct"),
    "seeds that are no numbers": (("sweep", STUDIO, "--seeds", "a"), "--seeds a"),
    "options of SLURM that are none": (
        ("sweep", STUDIO, "--dry-run", "--slurm", "nonsense"),
        "--slurm nonsense: write KEY=VALUE",
    ),
    "no jobs": (("sweep", STUDIO, "--jobs", "0"), "--jobs 0"),
    "key added that is there, beside a group whose name is part of it": (
        ("train", STUDIO, "simulator=embree", "+habitat.simulator.flat_shading=true"),
        "Write it without +",
    ),
    "unknown key of a sweep": (("sweep", STUDIO, "habitat.sed=1"), "did you mean habitat.seed"),
    "seed that a sweep sets": (("sweep", STUDIO, "habitat.seed=1"), "--seeds"),
    "another trainer in a sweep": (
        ("sweep", "--config-name=nav/ppo_pointnav_studio"),
        "trainer_name=ppo",
    ),
    "evaluation on layouts of a training": (
        ("sweep", STUDIO, "habitat_baselines.evaluator.seed=100"),
        "evaluator.seed=100",
    ),
    "no steps to train": (("quickstart", "--train-steps", "0"), "--train-steps 0"),
    "unknown kind of home": (
        ("scenes", "generate", "--out", "new", "--kind", "castle"),
        "castle",
    ),
    "split sizes that are no numbers": (
        ("scenes", "generate", "--out", "new", "--split-sizes", "a,b"),
        "--split-sizes a,b",
    ),
    "no such data set": (
        ("scenes", "show", "nowhere", "--house", "0", "--out", "a.png"),
        "nowhere",
    ),
    "picture that is no PNG": (
        ("scenes", "show", "nowhere", "--house", "0", "--out", "a.jpg"),
        ".png",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gives_one_line_with_the_value_and_leaves_nothing(capsys, tmp_path, case):
    arguments, named = BAD_INPUT[case]
    if "missing Habitat-Sim" in case:
        from memo_habitat.compat.habitat_sim_stub import habitat_sim_is_missing

        if not habitat_sim_is_missing():
            pytest.skip("the real Habitat-Sim is installed")
    assert named in fail(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


FROM_STUDIO = "# @package _global_\ndefaults:\n  - /extobjnav/studio\n  - _self_\n"
BAD_FILES = {
    "no YAML": ("a: [b", "mine.yaml is not valid YAML: line 1, column 6: expected"),
    "no text": (b"\xff\xfe", "mine.yaml is not valid YAML: 'utf-8' codec"),
    "empty": ("", "mine.yaml has no defaults"),
    "no defaults": ("habitat: {seed: 3}", "begin with a list `defaults:` such as [/extobjnav/st"),
    "unknown defaults": (
        "defaults:\n  - /dark_key_to_dor\n",
        "In 'mine': unknown config 'dark_key_to_dor'; did you mean dark_key_to_door",
    ),
    "unknown option of a group": (
        "defaults:\n  - /extobjnav/studio\n  - override /memory: fctt\n",
        "'memory/fctt'; there are ac, fct",
    ),
    "misspelt key": (
        f"{FROM_STUDIO}habitat_baselines: {{rl: {{memory: {{widt: 3}}}}}}",
        "unknown key 'habitat_baselines.rl.memory.widt'; did you mean "
        "habitat_baselines.rl.memory.width?\n",
    ),
    "misspelt at the top": (
        f"{FROM_STUDIO}habitat_baseline: {{num_environments: 3}}",
        "mine.yaml: unknown key 'habitat_baseline'; did you mean habitat_baselines?\n",
    ),
    "misspelt branch": (
        f"{FROM_STUDIO}habitat: {{taks: {{a: 3}}}}",
        "did you mean habitat.task?\n",
    ),
    "value of another kind": (
        f"{FROM_STUDIO}habitat: {{seed: abc}}",
        "In 'mine': habitat.seed: Value 'abc' of type 'str' could not be converted to Integer",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_of_ones_own_is_named_with_what_is_wrong(capsys, tmp_path, case):
    content, named = BAD_FILES[case]
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert named in fail(capsys, "train", "--config-name=mine.yaml")
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_of_ones_own_may_have_keys_to_refer_to(tmp_path):
    from memo_habitat.config.compose import compose_config

    file = tmp_path / "mine.yaml"
    file.write_text(f"{FROM_STUDIO}run_id: a\nout_dir: ${{run_id}}/x\n")
    assert compose_config(str(file)).out_dir == "a/x"


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("nope.yaml", "no file nope.yaml\n"),
        ("wide/mien.yaml", "no file wide/mien.yaml; did you mean wide/mine.yaml?"),
        ("extobjnav/studoi.yaml", "did you mean extobjnav/studio.yaml?"),
        ("wide/mine", "unknown config 'wide/mine'; did you mean wide/mine.yaml?"),
        ("wide/other.yml", "wide/other.yml does not end in .yaml"),
    ],
)
def test_a_file_that_is_not_there_is_answered_with_the_nearest(capsys, tmp_path, name, named):
    (tmp_path / "wide").mkdir()
    for file in ("mine.yaml", "other.yml"):
        (tmp_path / "wide" / file).write_text(FROM_STUDIO)
    assert named in fail(capsys, "train", f"--config-name={name}")


def test_an_output_folder_with_another_run_stays_as_it_is(capsys, tmp_path):
    run = tmp_path / "taken"
    run.mkdir()
    (run / "run.json").write_text("{}")
    (run / "config.yaml").write_text("a: 1\n")
    line = fail(capsys, "train", STUDIO, "--out", str(run))
    assert "another run" in line
    assert f"--resume {run}" in line
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "run.json"]


@pytest.mark.parametrize("option", ["--out", "--root"])
def test_a_folder_that_cannot_be_made_is_refused(capsys, tmp_path, option):
    (tmp_path / "file").write_text("in the way")
    line = fail(capsys, "train", STUDIO, option, str(tmp_path / "file"))
    assert str(tmp_path / "file") in line
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_folder_that_the_system_refuses_is_answered_with_the_options(
    capsys, tmp_path, monkeypatch, command
):
    from memo_habitat.sweep import spec

    def refused(path, *args, **kwargs):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(spec, "check_sweep", lambda sweep: None)
    monkeypatch.setattr(Path, "mkdir", refused)
    folder = tmp_path / "new"
    line = fail(capsys, command, STUDIO, "--out", str(folder))
    assert f"cannot write to the output folder {folder}: No such file or directory" in line
    assert "choose another with --out or --root" in line


def test_a_sweep_is_not_taken_for_a_run(capsys, tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    line = fail(capsys, "train", "--resume", str(tmp_path))
    assert f"is a sweep, not a run; resume it: memo-habitat sweep --resume {tmp_path}" in line


@pytest.mark.slow
def test_a_run_without_checkpoint_says_so(capsys, tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    assert main(["train", STUDIO, "--cfg"]) == 0
    (tmp_path / "run/config.yaml").write_text(capsys.readouterr().out)
    assert "train first" in fail(capsys, "eval", "run")
    assert "ckpt.7" in fail(capsys, "eval", "run", "--checkpoint", "ckpt.7")
    assert "did you mean habitat.seed" in fail(capsys, "eval", "run", "habitat.sed=1")
    group = fail(capsys, "train", "--resume", "run", "setting=hard")
    assert "setting=hard: a group of the config cannot be changed" in group
    assert "start a new run" in group
    (tmp_path / "run/config.yaml").write_text("a: [\n")
    assert "config.yaml" in fail(capsys, "eval", "run")


@pytest.mark.parametrize(
    "arguments", [("--debug", "eval", "runs/none"), ("eval", "runs/none", "--debug")]
)
def test_debug_shows_the_traceback(arguments):
    with pytest.raises(UserError):
        main(arguments)


@pytest.mark.parametrize("told", ["interrupted", "stopped; resume with: ..."])
def test_ctrl_c_ends_with_130(monkeypatch, capsys, told):
    def interrupt(checks: object) -> None:
        raise KeyboardInterrupt(*([] if told == "interrupted" else [told]))

    monkeypatch.setattr(doctor, "examine", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == f"{told}\n"


def test_a_dead_worker_ends_with_1(monkeypatch, capsys):
    def die(checks: object) -> None:
        raise WorkerError("worker 1 of 2 ended: killed by SIGKILL")

    monkeypatch.setattr(doctor, "examine", die)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == (
        "memo-habitat doctor: worker 1 of 2 ended: killed by SIGKILL\n"
    )


def test_a_new_run_folder_says_how_it_was_made(tmp_path):
    config = OmegaConf.create({"habitat": {"seed": 5}, "other": "${habitat.seed}"})
    run = plan_run("extobjnav/studio", tmp_path)
    assert not run.path.exists()
    create_run(run, "extobjnav/studio", config)
    assert run.path.name.startswith("extobjnav-studio-")
    facts = json.loads((run.path / "run.json").read_text())
    assert facts["seed"] == 5
    assert facts["versions"]["torch"]
    assert set(facts) >= {"config", "command", "git_revision", "started", "machine"}
    assert open_run(run.path).config().other == 5
    again = plan_run("extobjnav/studio", tmp_path)
    assert again.path != run.path


def test_the_quickstart_shows_the_shipped_agent_trains_another_and_ends_with_the_report(
    monkeypatch, capsys, tmp_path
):
    from memo_habitat.cli import demo
    from memo_habitat.report import html
    from memo_habitat.trainer import launch

    done: list[tuple[str, bool]] = []
    training = launch.Training(RunFolder("runs/x"), OmegaConf.create())

    def evaluate(run, several, processes):
        done.extend((each.agent, each.forget) for each in several)

    monkeypatch.setattr(launch, "start_training", lambda *a, **k: training)
    monkeypatch.setattr(launch, "train", lambda t: not done.append(("train", False)))
    monkeypatch.setattr(demo, "evaluate_in_processes", evaluate)
    monkeypatch.setattr(html, "summarise", lambda runs: "the table")
    monkeypatch.setattr(html, "write_report", lambda runs, out=None: out)
    assert main(["quickstart", "--root", str(tmp_path)]) == 0
    shown = [("checkpoint", False), ("checkpoint", True)]
    trained = [("train", False), ("checkpoint", False), ("random", False), ("oracle", False)]
    assert done == shown + trained
    lines = capsys.readouterr().out.splitlines()
    assert "the table" in lines
    assert lines[-1] == "runs/x/report.html"


@pytest.mark.slow
def test_the_demo_shows_that_the_shipped_agent_remembers(capsys, tmp_path, monkeypatch):
    from memo_habitat.cli import demo
    from memo_habitat.trainer import launch

    # Two of the eight homes, in this process: where remembering pays within so few steps.
    homes = "habitat.dataset.content_scenes=[loft_0_test_002,loft_0_test_005]"

    def evaluate(run, several, processes):
        for options in several:
            launch.evaluate(run, replace(options, overrides=(homes,)))

    monkeypatch.setattr(demo, "evaluate_in_processes", evaluate)
    assert main(["demo", "--trials", "1", "--steps", "512", "--root", str(tmp_path)]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1]).parent
    found = {
        path.name: sum(r.success for r in iterate_records(path / "records.jsonl"))
        for path in (folder / "eval").iterdir()
    }
    assert len(found) == 2
    forgetful = found.pop(next(name for name in found if name.endswith("forget")))
    assert next(iter(found.values())) > 1.3 * forgetful


def test_a_key_that_is_newer_than_a_run_can_be_given_as_the_error_says():
    config = OmegaConf.create({"habitat": {"seed": 1}})
    with pytest.raises(UserError, match=r"added with a \+, as \+evaluator.shading=true"):
        update_config(config, ["evaluator.shading=true"])
    update_config(config, ["+evaluator.shading=true"])
    assert config.evaluator.shading is True


def test_keys_of_a_saved_config_keep_their_kinds():
    config = OmegaConf.create({"clip": True, "epochs": 4, "lr": 0.1, "kind": "memo", "end": None})
    update_config(config, ["clip=off", "epochs=5", "lr=2", "kind=off", "end=7"])
    assert config == {"clip": False, "epochs": 5, "lr": 2.0, "kind": "off", "end": 7}
    for override, wanted in (
        ("clip=perhaps", "clip=perhaps: give true or false; it is False"),
        ("epochs=2.5", "epochs=2.5: give a whole number; it is 5"),
        ("lr=abc", "lr=abc: give a number; it is 2.0"),
    ):
        with pytest.raises(UserError, match=re.escape(wanted)):
            update_config(config, [override])
    update_config(config, ["epochs=null", "lr=${end}"])
    assert config.epochs is None and config.lr == 7
