"""What is wrong with a study, from its upload to what may be said of it."""

from service.errors.base import Kind, WhylightError


class SeveralStudies(WhylightError):
    """An upload holds images of more than one study, maybe of more than one patient."""

    kind = Kind.CALLER
    code = "several_studies"
    title = "The upload holds images of several studies"


class SeveralPatients(WhylightError):
    """An upload holds images of one study that name different patients."""

    kind = Kind.CALLER
    code = "several_patients"
    title = "The upload holds images of several patients"


class ContradictoryObjects(WhylightError):
    """An upload holds different objects under one SOP Instance UID."""

    kind = Kind.CALLER
    code = "contradictory_objects"
    title = "The upload holds different objects of one identity"


class StudyContradicted(WhylightError):
    """The study is held already, with another patient or other objects of the same identity."""

    kind = Kind.CALLER
    code = "study_contradicted"
    title = "The study contradicts one that is held"


class NotDicom(WhylightError):
    """The bytes are not a DICOM object, or it lacks the UIDs that every object has."""

    kind = Kind.DATA
    code = "not_dicom"
    title = "Not a valid DICOM object"


class TruncatedDicom(WhylightError):
    """The DICOM object ends before its data does."""

    kind = Kind.DATA
    code = "truncated"
    title = "The DICOM object is truncated"


class NoPixelData(WhylightError):
    """The DICOM object holds no image."""

    kind = Kind.DATA
    code = "no_pixel_data"
    title = "The DICOM object holds no image"


class AbsurdDimensions(WhylightError):
    """The image's declared numbers are impossible or over the limit."""

    kind = Kind.DATA
    code = "absurd_dimensions"
    title = "The declared image size is impossible or over the limit"


class UnsupportedTransferSyntax(WhylightError):
    """The pixels are compressed in a way that no maintained decoder reads."""

    kind = Kind.DATA
    code = "unsupported_transfer_syntax"
    title = "The transfer syntax is not supported"


class UnsupportedImage(WhylightError):
    """An image of a form that is not read yet (multi-frame, palette, ...)."""

    kind = Kind.DATA
    code = "unsupported_image"
    title = "This form of image is not supported"


class UndecodablePixels(WhylightError):
    """The decoder failed, crashed or hung on the pixels."""

    kind = Kind.DATA
    code = "undecodable_pixels"
    title = "The pixels cannot be decoded"


class NothingUsable(WhylightError):
    """Not one of several objects that were sent could be kept."""

    kind = Kind.DATA
    code = "nothing_usable"
    title = "No object could be kept"


class NotAcceptedByModel(WhylightError):
    """No image of the study is what the model was made for."""

    kind = Kind.DATA
    code = "not_accepted_by_model"
    title = "The study is not what the model was made for"


class MissingView(WhylightError):
    """The study lacks one of the views that the model takes at once."""

    kind = Kind.DATA
    code = "missing_view"
    title = "A view that the model takes is missing"


class SingleImageModel(WhylightError):
    """A volume was named, and the model takes single images."""

    kind = Kind.CALLER
    code = "single_image_model"
    title = "The model takes single images"


class AmbiguousStudy(WhylightError):
    """More than one image fits and the request names none."""

    kind = Kind.CALLER
    code = "ambiguous_study"
    title = "More than one image fits"


class TooFewSlices(WhylightError):
    """The series has fewer slices than the model needs."""

    kind = Kind.DATA
    code = "too_few_slices"
    title = "Too few slices"


class TooFewImages(WhylightError):
    """The study has fewer images for a bag than the model needs."""

    kind = Kind.DATA
    code = "too_few_images"
    title = "Too few images"


class NoSliceGeometry(WhylightError):
    """A slice does not say where it lies in the patient."""

    kind = Kind.DATA
    code = "no_slice_geometry"
    title = "The slices have no place in the patient"


class MixedSlices(WhylightError):
    """The slices differ in orientation, spacing, size, frame of reference or meaning."""

    kind = Kind.DATA
    code = "mixed_slices"
    title = "The slices do not form one volume"


class DuplicateSlices(WhylightError):
    """Several slices lie at one place."""

    kind = Kind.DATA
    code = "duplicate_slices"
    title = "Several slices lie at one place"


class MissingSlices(WhylightError):
    """The steps from slice to slice are multiples of the least: some lack."""

    kind = Kind.DATA
    code = "missing_slices"
    title = "Slices are missing"


class IrregularSlices(WhylightError):
    """The slices are not evenly spaced; nothing is averaged."""

    kind = Kind.DATA
    code = "irregular_slices"
    title = "The slices are not evenly spaced"


class ShearedVolume(WhylightError):
    """The slices are shifted against each other, and the model was not made for that."""

    kind = Kind.DATA
    code = "sheared_volume"
    title = "The slices lie aslant"


class ParityMismatch(WhylightError):
    """The model says something else on this image than the issuing AI was observed to say."""

    kind = Kind.DATA
    code = "parity_mismatch"
    title = "Not the observed result"


class MissingValue(WhylightError):
    """A number that the model takes beside the image is nowhere given, or off its range."""

    kind = Kind.DATA
    code = "missing_value"
    title = "The model lacks a value beside the image"


class FormatNotApplicable(WhylightError):
    """The map, or its source image, cannot be written in this format; others can."""

    kind = Kind.DATA
    code = "format_not_applicable"
    title = "The format does not suit this map"


class NothingToExplain(WhylightError):
    """No output is above its threshold."""

    kind = Kind.DATA
    code = "nothing_above_threshold"
    title = "No finding is above its threshold"
