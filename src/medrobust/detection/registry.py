"""Which detectors params.yaml may name. To add one: its file and a line here; only `detect_plan` reads this."""

#: name -> module:class, imported when it is asked for
DETECTORS = {
    "gmm": "medrobust.detection.detectors.gmm:ClasswiseMixture",
    "kde": "medrobust.detection.detectors.kde:KernelDensity",
    "lid": "medrobust.detection.detectors.lid:IntrinsicDimensionality",
    "mahalanobis": "medrobust.detection.detectors.mahalanobis:Mahalanobis",
    "dfeat": "medrobust.detection.detectors.dfeat:DeepFeatureClassifier",
    "dropout": "medrobust.detection.detectors.dropout:DropoutUncertainty",
    "squeeze": "medrobust.detection.detectors.squeeze:FeatureSqueezing",
}
