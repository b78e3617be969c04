"""Sources by their name in `data.source`, and their modules. To add a source, write its module and add a line."""

SOURCES = {
    "phantom": "medrobust.data.sources.phantom",
    "archive": "medrobust.data.sources.archive",
    "oct2017": "medrobust.data.sources.oct2017",
    "figshare_tumor": "medrobust.data.sources.figshare_tumor",
    "medmnist": "medrobust.data.sources.medmnist",
    "huggingface": "medrobust.data.sources.huggingface",
    "kaggle": "medrobust.data.sources.kaggle",
    "nifti": "medrobust.data.sources.nifti",
    "dicom": "medrobust.data.sources.dicom",
}
