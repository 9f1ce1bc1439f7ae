"""The model libraries' own bars and advice, turned off."""

import logging


def quiet_libraries() -> None:
    """Turn off the bars and advice of the model libraries, and let our own lines through."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
