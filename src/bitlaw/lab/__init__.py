"""The half that measures: everything that needs torch. It writes rows; it never reads a law."""

from ..errors import LabError

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise LabError('the lab needs torch; install it with: pip install "bitlaw[lab]"') from error
