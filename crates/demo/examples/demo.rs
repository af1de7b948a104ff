//! The demo without the command line around it.

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let json = std::env::args().any(|argument| argument == "--json");
    let holds = sealwire_demo::run(sealwire_demo::Options { json, keep: None, colour: true }).await?;
    std::process::exit(i32::from(!holds));
}
