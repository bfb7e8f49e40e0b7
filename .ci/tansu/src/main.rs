//! The broker's own command line.

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", tansu_cli::Cli::main().await?);
    Ok(())
}
