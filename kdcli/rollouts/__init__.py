"""Agent x env -> Dataset: what the teacher, a student, chance or a mixture lives through, labelled by the teacher."""
