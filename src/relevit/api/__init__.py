"""The public functions: COMMAND.py holds `relevit.COMMAND`, which is also the command of that name, and shows its result."""

COMMANDS = (
    "demo",
    "explain",
    "masks",
    "finetune",
    "evaluate",
    "measure",
    "audit",
    "effects",
    "compose",
    "probe",
    "interpolate",
    "info",
    "convert",
    "split",
    "doctor",
    "reproduce",
)
