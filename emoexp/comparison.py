"""Which of several trainings is better, by how much, and how sure are we? Statistics over seeds and test images."""
