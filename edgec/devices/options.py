"""What the inventory may say about a device of some kind: the base of each kind's `Options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


class KindOptions(BaseModel):
    """Options of one kind of device; what it does not name is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _place(path: Path, info: ValidationInfo) -> Path:
    """Relative to the folder of the file that names it, or from home with `~`."""
    folder = (info.context or {}).get("folder")
    return (folder or Path()).joinpath(path.expanduser()).absolute()


#: The type of an option that names a file or folder of this machine.
Place = Annotated[Path, AfterValidator(_place)]
