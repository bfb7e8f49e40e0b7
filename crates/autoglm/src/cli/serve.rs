//! `autoglm serve`

use autoglm_domain::{Alias, Error};
use clap::Args;

use crate::{
    node::Node,
    printer::{Outcome, Printer},
};

use super::settings_args::{DataArgs, SettingsArgs, listen, model};

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Serve this model folder, GGUF file or hub id instead of the starter model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    #[command(flatten)]
    data: DataArgs,
}

/// Serves until the process is told to stop; answers on their way go on.
pub(super) async fn run(args: ServeArgs, settings: &SettingsArgs, printer: &Printer) -> Outcome {
    let settings = settings.load("info", [model(args.model), listen(args.listen), args.data.named()])?;
    // First, so that a port in use is told before a model is loaded.
    let listener = autoglm_gateway::bind(&settings.server.listen).await.map_err(Error::from)?;
    let address = listener
        .local_addr()
        .map_err(|error| Error::internal(format!("the address of the listener is not known: {error}")))?;
    let node = Node::open(&settings).await?;
    let champion = node.registry.aliases().current(&Alias::champion());
    printer.note(&format!(
        "autoglm {} answers at http://{address}/v1 with {champion}",
        env!("CARGO_PKG_VERSION")
    ));
    let served = node.serve(listener, told_to_stop()).await;
    node.close().await;
    Ok(served?)
}

/// Ends at Ctrl-C or SIGTERM. A second Ctrl-C ends the process as it would any other.
async fn told_to_stop() {
    #[cfg(unix)]
    {
        let terminate = async {
            match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                Ok(mut signals) => drop(signals.recv().await),
                Err(error) => {
                    tracing::warn!(%error, "SIGTERM ends the process at once");
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = interrupted() => {}
            () = terminate => {}
        }
    }
    #[cfg(not(unix))]
    interrupted().await;
    tokio::spawn(async {
        interrupted().await;
        std::process::exit(130);
    });
}

async fn interrupted() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::warn!(%error, "Ctrl-C ends the process at once");
        std::future::pending::<()>().await;
    }
}
