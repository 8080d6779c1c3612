//! `cluster`: a whole Kubernetes cluster in one executable. Its faces are the subcommands; see `options`.

mod config_file;
mod options;

use clap::Parser;

fn main() {
    let args = match config_file::merged(std::env::args_os().collect()) {
        Ok(args) => args,
        Err(_) => return,
    };
    let _ = options::Command::parse_from(args);
}
