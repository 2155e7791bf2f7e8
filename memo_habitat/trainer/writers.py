"""Where a training writes what it tells; what it cannot write is one error."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

from habitat import logger
from habitat_baselines.common.tensorboard_utils import get_writer
from habitat_baselines.rl.ddppo.ddp_utils import rank0_only
from omegaconf import DictConfig

from memo_habitat.errors import UserError
from memo_habitat.trainer.wandb_writer import WandbWriter, check_writer


def make_writer(config: DictConfig, flush_secs: int, **more: Any) -> Any:
    """Habitat's writer of TensorBoard, or ours of Weights & Biases; a context manager.

    Raises:
        UserError: unknown writer, or its package is missing.
    """
    check_writer(config.habitat_baselines)
    if config.habitat_baselines.writer_type == "wb":
        return WandbWriter(config)
    return get_writer(config, flush_secs=flush_secs, **more)


@contextlib.contextmanager
def training_writer(config: DictConfig, flush_secs: int, purge_step: int) -> Iterator[Any]:
    """Writes to TensorBoard or Weights & Biases; None but in the first process.

    TensorBoard drops what an earlier process logged from `purge_step` on.

    Raises:
        UserError: from within, where TensorBoard or the log cannot be written; names the folder.
    """
    baselines = config.habitat_baselines
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):  # logging would print a traceback and go on
            handler.handleError = _refuse_log  # type: ignore[method-assign]
    if not rank0_only():
        yield None
        return
    # TensorBoard writes in a thread. What ends it is raised again in ours, once more is to be
    # written: there it is told.
    failed: list[BaseException | None] = []
    told_by_thread = threading.excepthook

    def excepthook(args: Any) -> None:
        if isinstance(args.exc_value, OSError) and "tensorboard" in type(args.thread).__module__:
            failed.append(args.exc_value)
        else:
            told_by_thread(args)

    threading.excepthook = excepthook
    try:
        with make_writer(config, flush_secs, purge_step=purge_step) as writer:
            yield writer
        if failed:  # by what was written last
            raise _cannot_write(baselines.tensorboard_dir, failed[0])
    except OSError as error:
        if error in failed:
            raise _cannot_write(baselines.tensorboard_dir, error) from error
        raise
    finally:
        threading.excepthook = told_by_thread


def _refuse_log(record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]
    paths = [h.baseFilename for h in logger.handlers if isinstance(h, logging.FileHandler)]
    raise _cannot_write(", ".join(paths), error) from error


def _cannot_write(path: str, error: BaseException | None) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"cannot write {path} ({reason}); check space and permissions")
