"""Which detectors params.yaml may name. To add one: its file and a line here; only `detect_plan` reads this."""

#: name -> module:class, imported when it is asked for
DETECTORS = {
    "gmm": "medrobust.detection.gmm:ClasswiseMixture",
    "kde": "medrobust.detection.kde:KernelDensity",
    "lid": "medrobust.detection.lid:IntrinsicDimensionality",
    "mahalanobis": "medrobust.detection.mahalanobis:Mahalanobis",
    "dfeat": "medrobust.detection.dfeat:DeepFeatureClassifier",
    "dropout": "medrobust.detection.dropout:DropoutUncertainty",
    "squeeze": "medrobust.detection.squeeze:FeatureSqueezing",
}
