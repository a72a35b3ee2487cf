"""What tells the patients of a study's images apart, without telling who they are."""

from service.domain.value import Value


class Patient(Value):
    """Digests, within one study, of what an image says of its patient; empty where it does not."""

    id: str = ""
    issuer: str = ""
    """Of the Patient ID; without one it says nothing."""

    name: tuple[tuple[str, ...], ...] = ()
    """Of each writing of the name: of all its words, then of family, given and middle name."""

    birth_date: str = ""
    sex: str = ""

    def contradictions(self, other: "Patient") -> tuple[str, ...]:
        """Return by which attributes another image's patient is another one.

        What one of the two does not say contradicts nothing.
        """
        differing = {
            "patient_id": _differ(self.id, other.id),
            "issuer_of_patient_id": _differ(self.issuer, other.issuer),
            "patient_name": any(map(_written_otherwise, self.name, other.name)),
            "patient_birth_date": _differ(self.birth_date, other.birth_date),
            "patient_sex": _differ(self.sex, other.sex),
        }
        return tuple(name for name, differs in differing.items() if differs)


def _differ(one: str, other: str) -> bool:
    return bool(one and other) and one != other


def _written_otherwise(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Tell whether one writing of two names is of two persons.

    A part that one of them lacks does not count, nor how the same words are parted.
    """
    if not one or not other or one[0] == other[0]:
        return False
    return any(map(_differ, one[1:], other[1:]))
