"""`fer-app`: what fer-predict does, in a browser on the same machine."""
