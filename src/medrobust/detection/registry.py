"""The detectors that params.yaml may name. To add one: its file in `detectors/`, and a line here."""

#: name -> module:class; the module is imported when the detector is built
DETECTORS = {
    "gmm": "medrobust.detection.detectors.gmm:ClasswiseMixture",
    "kde": "medrobust.detection.detectors.kde:KernelDensity",
    "lid": "medrobust.detection.detectors.lid:IntrinsicDimensionality",
    "mahalanobis": "medrobust.detection.detectors.mahalanobis:Mahalanobis",
    "dfeat": "medrobust.detection.detectors.dfeat:DeepFeatureClassifier",
    "dropout": "medrobust.detection.detectors.dropout:DropoutUncertainty",
    "squeeze": "medrobust.detection.detectors.squeeze:FeatureSqueezing",
}
