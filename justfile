# Recipes for people; `just` lists them. What must hold before a change goes in is `.ci/run`.

_list:
    @just --list

# Watch a server learn from a stream of real utterances
demo *arguments:
    cargo run --release -- demo {{ arguments }}

# Serve on 127.0.0.1:8080
serve *arguments:
    cargo run --release -- serve {{ arguments }}

# Run all tests, or those of a crate: `just test -p autoglm-memory`
test *arguments="--workspace":
    cargo test {{ arguments }}

# Lint as strictly as .ci/run does
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Format everything
format:
    cargo fmt --all

# Read the documentation of the code
doc:
    cargo doc --workspace --no-deps --document-private-items --open

# Look at licences, bans and sources of the dependencies
deny:
    cargo deny check licenses bans sources

# Take in changed snapshots: the tests are run and the new output is written
snapshots *arguments="--workspace":
    INSTA_UPDATE=always cargo test {{ arguments }}

# Everything that must hold before a change goes in
ci:
    .ci/run
