"""Many runs for one question: what asks the engine again and again. Enters nothing that one run needs."""
