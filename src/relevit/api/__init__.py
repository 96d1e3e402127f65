"""The public functions: COMMAND.py holds `relevit.COMMAND`, which is also the command of that name, and shows its result."""

_KEYWORDS = {"import": "import_checkpoint"}  # commands whose names Python keeps for itself

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
    "import",
    "export",
    "convert",
    "split",
    "doctor",
    "reproduce",
)


def function_name(command: str) -> str:
    """The public function that a command is, by name."""
    return _KEYWORDS.get(command, command)
