"""What stands under assets/, written and read. Read `schema` first; `store` alone opens the files."""
