"""The closed list of what slots can be asked to do; tensor libraries stay out."""

from collections.abc import Mapping
from typing import Final

from workers import segments, selftests, sheets
from workers.slot_main import Task
from workers.stages import decode, prepare

TASKS: Final[Mapping[str, Task]] = {
    "decode": decode.task,
    "survey": decode.survey_task,
    "decode_portion": decode.portion_task,
    "prepare": prepare.task,
    "render": sheets.task,
    segments.TASK: segments.task,
    selftests.TASK: selftests.task,
}
