"""From images to faces and emotions. Independent of datasets and training; torch only for .ckpt and MTCNN."""
