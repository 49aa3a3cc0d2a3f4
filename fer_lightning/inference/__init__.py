"""From images to faces and emotions. Independent of datasets and training; uses torch only to read a .ckpt."""
