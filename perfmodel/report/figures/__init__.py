"""Results as figures."""

import logging

logging.getLogger("matplotlib").setLevel(
    logging.ERROR
)  # where no home can be written it tells of its caches; figures are the same
