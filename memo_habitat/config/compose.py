"""Composes a config by name as the `habitat-baselines` command does; errors are one line each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memo_habitat.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Groups of choices, such as memory=rmt: folders beside those of the experiments.
GROUPS = ("memory", "home", "simulator", "encoder", "setting")
_PARTS = {"base", *GROUPS}
# At the top of every config. Others may stand there, to be referred to.
_ROOTS = ("habitat", "habitat_baselines", "run_dir")
_HOW_TO_WRITE = """write key=value, with braces, brackets or commas in quotes: "key='{value}'\""""


def known_configs() -> tuple[str, ...]:
    """Return the names of the experiments that ship, for example "extobjnav/studio"."""
    import habitat_configs

    root = Path(habitat_configs.__file__).parent
    names = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    return tuple(sorted(name for name in names if not _PARTS & set(name.split("/"))))


def choices(group: str) -> tuple[str, ...]:
    """Return what one of `GROUPS` offers among the configs that ship."""
    import habitat_configs

    folder = Path(habitat_configs.__file__).parent / group
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def unknown_config(name: str) -> str:
    """Return one line on a config that does not exist, with the nearest names."""
    if Path(f"{name}.yaml").is_file():
        return f"unknown config {name!r}; did you mean {name}.yaml?"
    if Path(name).is_file():
        return f"{name} does not end in .yaml, as the file of a config must"
    if name.endswith(".yaml"):
        return _no_file(name)
    known = known_configs()
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"unknown config {name!r}; did you mean {', '.join(close)}?"
    return f"unknown config {name!r}; there are {', '.join(known)}"


def _no_file(name: str) -> str:
    folder = Path(name).parent
    known = [str(path) for path in folder.glob("*.yaml")]
    known += [f"{config}.yaml" for config in known_configs()]
    close = difflib.get_close_matches(name, known, n=1)
    return f"no file {name}" + (f"; did you mean {close[0]}?" if close else "")


def own_file(name: str) -> Path | None:
    """Return the YAML file of a user's own that `name` is the path of, or None."""
    path = Path(name)
    return path.resolve() if path.suffix == ".yaml" and path.is_file() else None


def compose_config(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the config `name` with Hydra overrides ("key=value") applied.

    Args:
        name: of a config that ships, or the path of a YAML file of one's own.
        overrides: "key=value".

    Raises:
        UserError: no such config, key or value; the nearest names are suggested.
    """
    import_habitat()
    from hydra import compose, initialize_config_dir, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    given, own = name, own_file(name)
    name = own.stem if own else name.removesuffix(".yaml")
    GlobalHydra.instance().clear()
    search: Any
    if own is None:
        # By name: `initialize` looks for its caller, and on the way at every module there is.
        search = initialize_config_module("habitat_configs", version_base=None)
    else:
        search = initialize_config_dir(version_base=None, config_dir=str(own.parent))
    try:
        with search:
            config = compose(config_name=name, overrides=list(overrides))
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(_unreadable(error, given)) from error
    except MissingConfigException as error:
        missing = (error.missing_cfg_file or name).removesuffix(".yaml")
        if missing == name:
            raise UserError(unknown_config(given)) from error
        # Another one: of a group, whose options Hydra lists, or one that the config is made from.
        text = _one_line(error)
        if "there are" not in text:
            text = f"{text.partition(':')[0]}: {unknown_config(missing)}"
        raise UserError(text) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, given, overrides)) from error
    if own is not None and OmegaConf.select(config, "habitat.task") is None:
        raise UserError(
            f"{given} has no defaults that make an experiment of it; begin with a list `defaults:` "
            "such as [/extobjnav/studio, _self_]"
        )
    for key in config if own is not None else ():
        if key not in _ROOTS and (meant := difflib.get_close_matches(str(key), _ROOTS, 1, 0.9)):
            raise UserError(f"{given}: unknown key {key!r}; did you mean {meant[0]}?")
    return config


def update_config(config: DictConfig, overrides: Sequence[str]) -> None:
    """Change keys of a config that was composed before, in place.

    Raises:
        UserError: no such key, or a value of another kind.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"{_one_line(error)}; {_HOW_TO_WRITE}") from error
    for override in parsed:
        key = override.key_or_group
        if _is_group(key):
            raise UserError(
                f"{override.input_line}: a group of the config cannot be changed in a run that "
                "exists; start a new run with it"
            )
        if override.is_delete():
            raise UserError(f"{override.input_line}: keys of a run that exists can only be changed")
        if not override.is_add() and key not in (known := flatten(config)):
            where = (
                "the run's config.yaml lists what there is; a key that is newer than the run is "
                f"added with a +, as +{override.input_line}"
            )
            raise UserError(f"unknown key {key!r}{_nearest(key, known, where)}")
        try:
            value = _as_kind_of(OmegaConf.select(config, key), key, override.value())
            with open_dict(config):
                OmegaConf.update(config, key, value)
        except OmegaConfBaseException as error:
            raise UserError(f"{override.input_line}: {_one_line(error)}") from error


def _as_kind_of(present: Any, key: str, value: Any) -> Any:
    """The value, as composing would have it: a saved config does not know the kinds of its keys.

    Off and no, for one, are words to Hydra, and only to a key that is true or false more than that.
    """
    from omegaconf import BooleanNode, FloatNode, IntegerNode, ValidationError

    kinds: dict[type, tuple[Any, str]] = {
        bool: (BooleanNode, "true or false"),
        int: (IntegerNode, "a whole number"),
        float: (FloatNode, "a number"),
    }
    if type(present) not in kinds or (isinstance(value, str) and "${" in value):
        return value
    node, kind = kinds[type(present)]
    try:
        return node(value)._value()
    except ValidationError as error:
        raise UserError(f"{key}={value}: give {kind}; it is {present}") from error


def flatten(config: DictConfig) -> dict[str, Any]:
    """Every dotted key with its value as written, inner nodes included.

    References to other keys stay references.
    """
    from omegaconf import OmegaConf

    def walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            yield f"{prefix}{key}", value
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")

    container: Any = OmegaConf.to_container(config, resolve=False)
    return dict(walk(container, ""))


def override_key(override: str) -> str:
    """The key that a "key=value", "+key=value" or "~key" is about."""
    return override.partition("=")[0].strip().lstrip("+~")


def _is_group(key: str) -> bool:
    return "/" in key or key in GROUPS


def import_habitat() -> None:
    """Import what the `habitat-baselines` command imports, without the noise, and register all."""
    from memo_habitat.compat import habitat_sim_stub, startup

    habitat_sim_stub.install()
    startup.silence_gym_notice()
    startup.defer_torchvision()
    with startup.importing("habitat_baselines.run"):
        import habitat_baselines.run  # noqa: F401  # so that the search path plugin sees Habitat
        from hydra.core.plugins import Plugins

        from memo_habitat import register
        from memo_habitat.compat.hydra_plugin import MemoHabitatSearchPath

        register.register_all()
    startup.prepare_forkserver()
    startup.log_to_files_only()
    # Discovery finds the plugin of an installed package; this serves a checkout on PYTHONPATH.
    Plugins.instance().register(MemoHabitatSearchPath)


def _explain(error: Exception, name: str, overrides: Sequence[str]) -> str:
    """Return one line on why composing failed: the override at fault, and the nearest keys."""
    from hydra.errors import OverrideParseException

    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: {_first_line(error)}; {_HOW_TO_WRITE}"
    text = _one_line(error)
    if "An item is already at" in text:
        return f"{text} Write it without +"
    if "raised while composing" in text:
        return _fault_of_a_file(error)
    # The whole key: "simulator" is part of many others.
    whole = r"(?<![\w.]){}(?![\w.]*\w)"
    found = (k for k in map(override_key, overrides) if re.search(whole.format(re.escape(k)), text))
    key = next(found, None)
    if key is None or _is_group(key):
        return text
    known = flatten(compose_config(name, [o for o in overrides if _is_group(override_key(o))]))
    if key in known:
        return text
    where = f"`memo-habitat train --config-name={name} --cfg` prints what there is"
    return f"unknown key {key!r} in config {name!r}{_nearest(key, known, where)}"


def _fault_of_a_file(error: Exception) -> str:
    """Return one line on a file that cannot be merged: the key at fault, and the nearest."""
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    where = _first_line(error).partition(":")[0]
    # Hydra raises from None: the cause is the context.
    cause = error.__context__
    if not isinstance(cause, OmegaConfBaseException):
        return " ".join(str(error).splitlines()[:2])
    key = cause.full_key
    if not isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
        return f"{where}: {key}: {_first_line(cause)}"
    siblings: Any = cause.parent_node if cause.parent_node is not None else ()
    branch, dot, _ = (key or "").rpartition(".")
    known = [branch, *(f"{branch}{dot}{name}" for name in siblings)]
    return f"{where}: unknown key {key!r}{_nearest(key or '', known)}"


def _unreadable(error: Exception, name: str) -> str:
    """Return one line on a file that is no YAML, and where."""
    from yaml import MarkedYAMLError

    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    if mark is None:
        return f"{name} is not valid YAML: {_first_line(error)}"
    problem = getattr(error, "problem", None) or _first_line(error)
    place = f"line {mark.line + 1}, column {mark.column + 1}"
    return f"{mark.name} is not valid YAML: {place}: {problem}"


def _nearest(key: str, known: Collection[str], where: str = "") -> str:
    """Return "; did you mean ..." with the keys that look or end like `key`, else `where`."""
    parent, _, last = key.rpartition(".")
    ends: dict[str, list[str]] = {}
    for other in known:
        ends.setdefault(other.rpartition(".")[2], []).append(other)
    branch = f"{parent}." if parent else ""
    siblings = [end for end, keys in ends.items() if f"{branch}{end}" in keys]
    # Of learning_rate the initials are lr.
    initials = "".join(word[:1] for word in last.split("_"))
    short = [end for end in siblings if end.partition("_")[0] == initials]
    nearest = [
        f"{branch}{end}" for end in (*difflib.get_close_matches(last, siblings, n=3), *short)
    ]
    if parent in known and nearest and last not in ends:
        return f"; did you mean {', '.join(nearest)}?"
    if parent not in known:
        # Where the parent is right, keys that share it look alike, whatever they end in.
        nearest += difflib.get_close_matches(key, known, n=3, cutoff=0.75)
    # The last name may be right, or misspelt, in another branch of the tree.
    for end in (last, *difflib.get_close_matches(last, ends, n=1, cutoff=0.75)):
        nearest += ends.get(end, [])
    nearest = list(dict.fromkeys(nearest))[:3]
    if nearest:
        return f"; did you mean {', '.join(nearest)}?"
    return f"; {where}" if where else ""


def _one_line(error: BaseException) -> str:
    """Return Hydra's message without its listings, with the cause that it hides."""
    text = _first_line(error)
    options = [line.strip() for line in str(error).splitlines() if "Available options" in line]
    if options:
        listed = str(error).partition(options[0])[2].partition("Config search path")[0].split()
        return f"{text}; there are {', '.join(listed)}"
    cause = error.__cause__
    return f"{text}: {_first_line(cause)}" if cause is not None else text


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
