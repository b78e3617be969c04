"""medrobust: from a medical image data set to robust, honestly evaluated classifiers."""
