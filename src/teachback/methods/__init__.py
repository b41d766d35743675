"""The two methods: losses, weights, teachers, students and the curriculum."""
