"""Errors that a user can mend: the command line prints them as one line and exits with code 2."""


class UserError(ValueError):
    """Something in the arguments or the files given is wrong; the message names it and says what to do."""
