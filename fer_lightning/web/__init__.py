"""`fer-app`: fer-predict in a browser on the same machine."""
