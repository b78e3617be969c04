"""Which sources `data.source` may name. To add one: its module and a line here."""

#: name in `data.source` -> module, imported when it is asked for
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
