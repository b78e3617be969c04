"""Corruptions by name, and those of each modality. To add one: write its class, add it here and to a modality."""

#: name -> module:class, imported on first use
CORRUPTIONS = {
    "motion": "medrobust.corruptions.kspace:Motion",
    "ghosting": "medrobust.corruptions.kspace:Ghosting",
    "spike": "medrobust.corruptions.kspace:Spike",
    "bias_field": "medrobust.corruptions.intensity:BiasField",
    "rician_noise": "medrobust.corruptions.noise:RicianNoise",
    "resolution": "medrobust.corruptions.detail:Resolution",
    "gamma": "medrobust.corruptions.intensity:Gamma",
    "exposure": "medrobust.corruptions.intensity:Exposure",
    "poisson_noise": "medrobust.corruptions.noise:PoissonNoise",
    "window_shift": "medrobust.corruptions.intensity:WindowShift",
    "blur": "medrobust.corruptions.detail:Blur",
    "illumination": "medrobust.corruptions.intensity:Illumination",
    "speckle": "medrobust.corruptions.noise:Speckle",
    "jpeg": "medrobust.corruptions.detail:Jpeg",
    "rotation": "medrobust.corruptions.geometry:Rotation",
    "translation": "medrobust.corruptions.geometry:Translation",
    "intensity": "medrobust.corruptions.intensity:IntensityScaling",
}
#: modality (core/params/corruptions.py has the channels of its images) -> the corruptions that occur in it
MODALITIES = {
    "mri": ("motion", "ghosting", "spike", "bias_field", "rician_noise", "resolution", "gamma", "rotation",
            "translation", "intensity"),
    "xray": ("exposure", "poisson_noise", "blur", "window_shift", "rotation", "translation", "intensity"),
    "ct": ("exposure", "poisson_noise", "blur", "window_shift", "rotation", "translation", "intensity"),
    "photo": ("illumination", "blur", "speckle", "jpeg", "rotation", "translation", "intensity"),
    "oct": ("illumination", "blur", "speckle", "jpeg", "rotation", "translation", "intensity"),
}  # fmt: skip
