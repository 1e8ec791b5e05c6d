"""Files: replaced whole or not at all, found in folders, kept from run to run."""

from icnet_deploy.files.caches import CACHE_VARIABLE, asked_cache_folder, cache_folder
from icnet_deploy.files.predicted import (
    PREDICTION_LOG,
    PREDICTION_LOG_START,
    RESULT_ENDINGS,
    results_among,
)
from icnet_deploy.files.reading import (
    find_files,
    open_file,
    read_file,
    real_path,
    sha256,
    status,
    why_no_folder,
)
from icnet_deploy.files.writing import (
    alone_in,
    append_line,
    is_leftover,
    make_folder,
    replacing,
    require_folder_name,
    require_place,
    require_replaceable,
    scratch_folder,
    without_empty_folders,
    write_json,
    write_text,
)

__all__ = [
    "CACHE_VARIABLE",
    "PREDICTION_LOG",
    "PREDICTION_LOG_START",
    "RESULT_ENDINGS",
    "alone_in",
    "append_line",
    "asked_cache_folder",
    "cache_folder",
    "find_files",
    "is_leftover",
    "make_folder",
    "open_file",
    "read_file",
    "real_path",
    "replacing",
    "require_folder_name",
    "require_place",
    "require_replaceable",
    "results_among",
    "scratch_folder",
    "sha256",
    "status",
    "why_no_folder",
    "without_empty_folders",
    "write_json",
    "write_text",
]
