import gc

gc.disable()  # nothing that is imported or collected is garbage


def pytest_collection_finish():
    """Let the collector pass over what stays: torch, the house and nine thousand tests.

    It went through them all whenever a test made some objects, for half a second each time.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
