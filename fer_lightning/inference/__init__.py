"""From pictures to faces and emotions. Knows neither datasets nor training; torch only where a .ckpt is read."""
