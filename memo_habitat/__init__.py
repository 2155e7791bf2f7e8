"""A Habitat-Lab plugin: Memo policy, ExtObjNav task and DD-PPO trainer with summary memory.

The names of the Python API are imported when they are first used: this package is imported at every
start of the interpreter (`compat.habitat_sim_stub`).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from memo_habitat.config.compose import compose_config
    from memo_habitat.config.memory import MemoryConfig
    from memo_habitat.export.agent import load_agent
    from memo_habitat.export.folder import ExportOptions, export_agent
    from memo_habitat.memory import build as build_memory
    from memo_habitat.memory import register as register_memory
    from memo_habitat.report.html import write_report
    from memo_habitat.report.load import load_runs
    from memo_habitat.tasks.record_fields import RecordField
    from memo_habitat.trainer.launch import (
        EvalOptions,
        evaluate,
        make_env,
        resume_training,
        start_training,
        train,
    )
    from memo_habitat.trainer.run_dir import open_run

__version__ = "0.1.0"
# Name here -> module and name there.
_API = {
    "compose_config": ("config.compose", "compose_config"),
    "make_env": ("trainer.launch", "make_env"),
    "start_training": ("trainer.launch", "start_training"),
    "resume_training": ("trainer.launch", "resume_training"),
    "train": ("trainer.launch", "train"),
    "evaluate": ("trainer.launch", "evaluate"),
    "EvalOptions": ("trainer.launch", "EvalOptions"),
    "open_run": ("trainer.run_dir", "open_run"),
    "load_runs": ("report.load", "load_runs"),
    "write_report": ("report.html", "write_report"),
    "load_agent": ("export.agent", "load_agent"),
    "export_agent": ("export.folder", "export_agent"),
    "ExportOptions": ("export.folder", "ExportOptions"),
    "RecordField": ("tasks.record_fields", "RecordField"),
    "MemoryConfig": ("config.memory", "MemoryConfig"),
    "build_memory": ("memory", "build"),
    "register_memory": ("memory", "register"),
}


def __getattr__(name: str) -> "Any":
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _API[name]
    if module.startswith("export."):  # it derives from Habitat's classes, which need the stubs
        import_module(f"{__name__}.config.compose").import_habitat()
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})
