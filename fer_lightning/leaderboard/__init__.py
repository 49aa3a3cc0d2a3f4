"""Many runs beside each other: collected, grouped, tested against each other, drawn."""
