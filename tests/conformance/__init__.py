"""What every exported solver and adjoint must do. They meet whatever is exported, and list nothing."""
