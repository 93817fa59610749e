"""What every exported solver and adjoint must do. The suites list no solvers: they meet whatever is exported."""
