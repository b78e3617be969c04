"""From raw data to prepared images: sources, decoding, the image store, splits, augmentation."""
