//! An application's process: started, watched, killed, and started again.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::plan::{Plan, VARIABLE};
use super::signal;

/// POSIX gives it this number everywhere.
const SIGKILL: i32 = 9;
/// How long one that is asked to end may take.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// A process, and what it tells of itself.
pub(super) struct Victim {
    plan: Plan,
    running: Option<Running>,
    told: Arc<Told>,
}

/// Of all processes of one application together.
#[derive(Default)]
pub(super) struct Told {
    pub(super) shown: AtomicU64,
    /// Messages that were told again because a process had ended before they counted as processed.
    pub(super) again: AtomicU64,
    pub(super) is_done: AtomicBool,
}

struct Running {
    child: Child,
    /// Gives what it was at in the end.
    watch: JoinHandle<u8>,
}

impl Victim {
    pub(super) fn new(plan: Plan) -> Victim {
        Victim { plan, running: None, told: Arc::default() }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("kills-application").env(VARIABLE, self.plan.to_text());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (out, told) = (child.stdout.take().context("its output is piped")?, Arc::clone(&self.told));
        let watch = std::thread::spawn(move || listen(out, &told));
        self.running = Some(Running { child, watch });
        Ok(())
    }

    /// An error if it has ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        match running.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the application of {} has ended by itself: {status}", self.plan.name),
        }
    }

    /// SIGKILL. Gives what it was at.
    pub(super) fn kill(&mut self) -> anyhow::Result<u8> {
        self.told.is_done.store(false, Ordering::Relaxed);
        let Running { mut child, watch } = self.running.take().context("nothing runs")?;
        child.kill()?;
        let status = child.wait()?;
        ensure!(status.signal() == Some(SIGKILL), "the application of {} was not killed: {status}", self.plan.name);
        Ok(watch.join().unwrap_or(signal::CONNECTING))
    }

    /// Lets it end as an application does that a person closes.
    pub(super) fn close(&mut self) -> anyhow::Result<()> {
        let Running { mut child, .. } = self.running.take().context("nothing runs")?;
        drop(child.stdin.take());
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "the application of {} has ended with an error: {status}", self.plan.name);
                return Ok(());
            }
            if begin.elapsed() > LAST_WORDS {
                // It may have ended just now.
                let _ = child.kill();
                bail!("the application of {} does not end", self.plan.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            // It may have ended by itself.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// To the end, which comes behind all that a killed process had said.
fn listen(mut out: ChildStdout, told: &Told) -> u8 {
    let (mut bytes, mut at) = ([0; 4_096], signal::CONNECTING);
    while let Ok(count @ 1..) = out.read(&mut bytes) {
        for byte in &bytes[..count] {
            match *byte {
                signal::SHOWN => drop(told.shown.fetch_add(1, Ordering::Relaxed)),
                signal::AGAIN => drop(told.again.fetch_add(1, Ordering::Relaxed)),
                signal::DONE => told.is_done.store(true, Ordering::Relaxed),
                phase => at = phase,
            }
        }
    }
    at
}
