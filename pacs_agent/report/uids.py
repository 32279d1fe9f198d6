"""UIDs of the objects we make, all under the root 2.25 (PS3.5 B.2: a UUID as one decimal number).

Enters: nothing, or a UID already given and the name of a part of that object. Leaves: UIDs of at most 44 characters.
Never asks for a registered root.
"""

import uuid

_NAMESPACE = uuid.UUID("5f1c1b0e-7c43-5f0a-9a3b-0d9f6c1e8a27")


def new_uid() -> str:
    """A UID that nobody has: given once to a stored revision of an analysis, then kept with its bytes."""
    return f"2.25.{uuid.uuid4().int}"


def derived_uid(parent_uid: str, name: str) -> str:
    """The UID of the part *name* of the object *parent_uid*: the same arguments give the same UID."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{parent_uid}/{name}').int}"
