"""The entry points of `memo-habitat scenes`."""

from __future__ import annotations

from memo_habitat.scenes.files import check_target
from memo_habitat.scenes.options import GenerateOptions, ShowOptions


def generate(options: GenerateOptions) -> None:
    """Write a data set of procedural homes.

    Raises:
        UserError: options that cannot be met, or a folder that cannot or must not be written.
    """
    options.check()
    check_target(options)
    # Importing the simulator takes seconds, which `--help` and refusals need not wait for.
    from memo_habitat.scenes.generate import write_data_set

    write_data_set(options)


def show(options: ShowOptions) -> None:
    """Write a picture of one arrangement of a house: floor plan and first-person views.

    Raises:
        UserError: no data set, no such house or arrangement, or a picture that cannot be written.
    """
    from memo_habitat.scenes.views import draw_house_picture

    draw_house_picture(options)
