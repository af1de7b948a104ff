//! Groups of growing size. One group grows, its tree without a blank, and its commits are measured; beside it, at each
//! size, one is begun in which up to 64 devices write in one epoch, and its messages are.

use sealwire_wire::padding::padded_length;

use super::bare::Bare;
use super::engines::{Engines, Message};
use super::ours::Ours;
use super::party::{Change, Made, Party, Sizes};
use super::{CONTENT, PEER, spent};
use crate::report::{Figure, median};
use crate::world::written;

/// Devices that one commit adds (C11).
const ADDED_MAX: usize = 64;
/// Devices that write in one epoch, at the most.
const SENDERS: usize = 64;
/// Messages of each that are read in turns with the others', each time.
const READ_OF_EACH: usize = 4;
/// Messages that each writes: one that is read first, and some among 16 senders and among all, without a store and with it.
const WRITTEN: usize = 1 + 4 * READ_OF_EACH;
const SEND: &str = "send";
const RECEIVE: &str = "receive";
/// Numbers of devices that are leaves and nothing else.
const GHOSTS: u32 = 1 << 16;

/// A group in which each leaf's path is filled.
struct Growing<'a, P: Party> {
    first: P,
    size: usize,
    next: u32,
    ghosts: &'a [P::Card],
}

impl<'a, P: Party> Growing<'a, P> {
    fn begin(ghosts: &'a [P::Card]) -> anyhow::Result<Growing<'a, P>> {
        let mut first = P::new(0)?;
        first.create()?;
        Ok(Growing { first, size: 1, next: 1, ghosts })
    }

    fn newcomer(&mut self) -> anyhow::Result<P> {
        self.next += 1;
        P::new(self.next)
    }

    /// Adds two leaves at a time. The right one joins and commits a path, so that every parent above both is filled and
    /// merged; what is to the left of them is so already. The newest of these devices.
    fn grow(&mut self, to: usize) -> anyhow::Result<P> {
        loop {
            let mut newest = self.newcomer()?;
            // The first leaf was alone.
            let left = self.size.is_multiple_of(2).then(|| self.ghosts[self.size].clone());
            let cards: Vec<_> = left.into_iter().chain([newest.card()?]).collect();
            self.size += cards.len();
            let added = self.first.commit(Change::Add(cards))?;
            self.first.merge()?;
            newest.join(added.welcome()?)?;
            let path = newest.commit(Change::Update)?;
            newest.merge()?;
            self.first.process(&path.commit)?;
            // What it keeps for a store is dropped.
            self.first.written()?;
            if self.size >= to {
                return Ok(newest);
            }
        }
    }
}

/// Figures by name, in the order in which each came first.
#[derive(Default)]
struct Samples(Vec<(String, &'static str, Vec<f64>)>);

impl Samples {
    fn add(&mut self, case: impl Into<String>, value: f64, unit: &'static str) {
        let case = case.into();
        match self.0.iter_mut().find(|(known, ..)| *known == case) {
            Some((_, _, values)) => values.push(value),
            None => self.0.push((case, unit, vec![value])),
        }
    }

    fn median(&self, case: &str) -> Option<f64> {
        self.0.iter().find(|(known, ..)| known == case).map(|(_, _, values)| median(values.clone()))
    }
}

/// What one side's groups cost, for each size.
fn measured<P: Party>(sizes: &[usize], ghosts: &[P::Card], quick: bool) -> anyhow::Result<Vec<Samples>> {
    let mut growing = Growing::<P>::begin(ghosts)?;
    let mut all = Vec::new();
    for size in sizes {
        let mut samples = Samples::default();
        messages::<P>(*size, ghosts, quick, &mut samples)?;
        let mut other = growing.grow(*size)?;
        let times = if quick { 1 } else { 3 };
        // Before whoever comes and goes leaves a blank parent behind, where the tree has room for more.
        for _ in 0..times {
            growing.commit("update", Change::Update, &mut other, &mut samples)?;
        }
        for _ in 0..times {
            growing.come_and_go(&mut other, &mut samples)?;
        }
        growing.commits_on_disk(&mut samples)?;
        samples.add("records held", growing.first.held()? as f64 / 1_000.0, "KB");
        all.push(samples);
    }
    Ok(all)
}

impl<P: Party> Growing<'_, P> {
    fn come_and_go(&mut self, other: &mut P, samples: &mut Samples) -> anyhow::Result<()> {
        let mut newcomer = self.newcomer()?;
        let added = self.commit("add one", Change::Add(vec![newcomer.card()?]), other, samples)?;
        let welcome = added.welcome()?;
        let (_, joining) = spent(|| newcomer.join(welcome))?;
        samples.add("add one: join", joining * 1e3, "CPU ms");
        samples.add("add one: Welcome", welcome.len() as f64, "B");
        // The tree was full: it stands behind all others.
        self.commit("remove one", Change::Remove(self.size as u32), other, samples)?;
        Ok(())
    }

    /// A commit of the first member, which another one follows.
    fn commit(
        &mut self,
        name: &str,
        change: Change<P::Card>,
        other: &mut P,
        samples: &mut Samples,
    ) -> anyhow::Result<Made> {
        self.first.written()?;
        other.written()?;
        let (made, making) = spent(|| {
            let made = self.first.commit(change)?;
            self.first.merge()?;
            Ok(made)
        })?;
        let (_, processing) = spent(|| other.process(&made.commit))?;
        let Sizes { up, down } = P::sizes(&made);
        samples.add(format!("{name}: make and merge"), making * 1e3, "CPU ms");
        samples.add(format!("{name}: process"), processing * 1e3, "CPU ms");
        samples.add(format!("{name}: up"), up as f64, "B");
        samples.add(format!("{name}: down to each"), down as f64, "B");
        if P::COUNTS {
            samples.add(format!("{name}: records written by its maker"), self.first.written()? as f64, "B");
            samples.add(format!("{name}: records written by a member"), other.written()? as f64, "B");
        }
        Ok(made)
    }

    fn commits_on_disk(&mut self, samples: &mut Samples) -> anyhow::Result<()> {
        if !P::COUNTS {
            return Ok(());
        }
        let folder = tempfile::tempdir()?;
        self.first.keep_in(Some(&folder.path().join("store")))?;
        for _ in 0..3 {
            let before = written()?;
            // Two steps: it is durable before it leaves, and is merged when it is read.
            self.first.commit(Change::Update)?;
            self.first.written()?;
            self.first.merge()?;
            self.first.written()?;
            samples.add("update: given to write calls by its maker", (written()? - before) as f64, "B");
        }
        self.first.keep_in(None)
    }
}

/// A group that is begun with all its members, and what they write in the epoch that the last of them joined by.
fn messages<P: Party>(size: usize, ghosts: &[P::Card], quick: bool, samples: &mut Samples) -> anyhow::Result<()> {
    let count = if quick { 50 } else { 200 };
    let mut first = P::new(0)?;
    let mut others = (1..size.min(SENDERS)).map(|number| P::new(number as u32)).collect::<Result<Vec<_>, _>>()?;
    let live = others.iter_mut().map(P::card).collect::<Result<Vec<_>, _>>()?;
    let (made, creating) = spent(|| {
        first.create()?;
        for added in ghosts[..size - 1 - live.len()].chunks(ADDED_MAX) {
            first.commit(Change::Add(added.to_vec()))?;
            first.merge()?;
        }
        let made = first.commit(Change::Add(live))?;
        first.merge()?;
        Ok(made)
    })?;
    samples.add("create, with all in it", creating * 1e3, "CPU ms");
    let welcome = made.welcome()?;
    let mut reader = others.remove(0);
    reader.join(welcome)?;
    first.written()?;
    reader.written()?;
    let (sealed, sending) = spent(|| first.seal_many(count))?;
    let (_, receiving) = spent(|| sealed.iter().try_for_each(|message| reader.open(message)))?;
    let each = |all: f64| all / count as f64;
    let overhead = sealed.iter().map(|message| P::entry_length(message) - padded_length(CONTENT)).max();
    samples.add("an entry over its padded plaintext", overhead.unwrap_or(0) as f64, "B");
    samples.add(SEND, each(sending) * 1e6, "CPU µs");
    samples.add(RECEIVE, each(receiving) * 1e6, "CPU µs");
    if !P::COUNTS {
        return Ok(());
    }
    samples.add("send, 1 sender: records written", each(first.written()? as f64), "B/message");
    samples.add("receive, 1 sender: records written", each(reader.written()? as f64), "B/message");
    let folder = tempfile::tempdir()?;
    first.keep_in(Some(&folder.path().join("first")))?;
    reader.keep_in(Some(&folder.path().join("reader")))?;
    let before = written()?;
    let mut sealed = Vec::new();
    for _ in 0..count {
        sealed.extend(first.seal_many(1)?);
        first.written()?;
    }
    let between = written()?;
    for message in &sealed {
        reader.open(message)?;
        reader.written()?;
    }
    samples.add("send, 1 sender: given to write calls", each((between - before) as f64), "B/message");
    samples.add("receive, 1 sender: given to write calls", each((written()? - between) as f64), "B/message");

    // From now on the first one reads, and has written itself.
    first.keep_in(None)?;
    let mut unread = vec![reader.seal_many(WRITTEN)?];
    drop(reader);
    let mut others = others.into_iter();
    for senders in [16, SENDERS].into_iter().filter(|senders| *senders <= size) {
        for mut writer in others.by_ref().take(senders - 1 - unread.len()) {
            writer.join(welcome)?;
            unread.push(writer.seal_many(WRITTEN)?);
        }
        read_all(&mut first, &mut unread, senders, samples)?;
    }
    Ok(())
}

/// Reads what senders wrote, in turns: first a message of each who was not read before, then some of each.
fn read_all<P: Party>(
    reader: &mut P,
    unread: &mut [Vec<Vec<u8>>],
    senders: usize,
    samples: &mut Samples,
) -> anyhow::Result<()> {
    for messages in unread.iter_mut().filter(|messages| messages.len() == WRITTEN) {
        reader.open(&messages.remove(0))?;
        let case = format!("receive the first message of one of {senders} senders: records written");
        samples.add(case, reader.written()? as f64, "B/message");
    }
    let (mut seconds, mut on_disk) = (0.0, 0);
    for _ in 0..READ_OF_EACH {
        let round: Vec<_> = unread.iter_mut().map(|messages| messages.remove(0)).collect();
        seconds += spent(|| round.iter().try_for_each(|message| reader.open(message)))?.1;
    }
    let records = reader.written()?;
    let folder = tempfile::tempdir()?;
    reader.keep_in(Some(&folder.path().join("reader")))?;
    for _ in 0..READ_OF_EACH {
        for messages in unread.iter_mut() {
            let before = written()?;
            reader.open(&messages.remove(0))?;
            reader.written()?;
            on_disk += written()? - before;
        }
    }
    reader.keep_in(None)?;
    let each = |all: f64| all / (READ_OF_EACH * unread.len()) as f64;
    samples.add(format!("receive, {senders} senders"), each(seconds) * 1e6, "CPU µs");
    samples.add(format!("receive, {senders} senders: records written"), each(records as f64), "B/message");
    let case = format!("receive, {senders} senders: given to write calls");
    samples.add(case, each(on_disk as f64), "B/message");
    reader.seal_many(1)?;
    samples.add(format!("send, {senders} senders: records written"), reader.written()? as f64, "B/message");
    Ok(())
}

pub(super) fn figures(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let sizes: &[usize] = if quick { &[2, 6, 16] } else { &[2, 6, 16, 128, 256, 1_024] };
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let ours = measured::<Ours>(sizes, &ghosts::<Ours>(largest)?, quick)?;
    let bare = measured::<Bare>(sizes, &ghosts::<Bare>(largest)?, quick)?;
    let mut figures = Vec::new();
    for ((size, ours), bare) in sizes.iter().zip(&ours).zip(&bare) {
        for (case, unit, values) in &ours.0 {
            let figure = Figure::new(format!("{size} devices, {case}"), median(values.clone()), unit);
            figures.push(match bare.median(case) {
                Some(value) => figure.beside(PEER, value),
                None => figure,
            });
        }
    }
    // The first size at which a member is one of several, and the largest.
    let several = sizes[1];
    let grown = |samples: &[Samples], case| Some(samples.last()?.median(case)? / samples.get(1)?.median(case)?);
    for case in [SEND, RECEIVE] {
        if let (Some(ours), Some(bare)) = (grown(&ours, case), grown(&bare, case)) {
            let name = format!("{case} at {largest} devices, of the same at {several}");
            figures.push(Figure::new(name, ours, "times").beside(PEER, bare));
        }
    }
    let thinking =
        sizes[1..].iter().map(|size| by_engines(*size, quick, &mut figures)).collect::<Result<Vec<_>, _>>()?;
    if let (Some(least), Some(most)) = (thinking.first(), thinking.last()) {
        let name = format!("engines: send and receive at {largest} devices, of the same at {several}");
        figures.push(Figure::new(name, most / least, "times"));
    }
    Ok(figures)
}

/// What whole engines and their stores spend on a message in a group; the microseconds of the engines.
fn by_engines(size: usize, quick: bool, figures: &mut Vec<Figure>) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut engines = Engines::of_group(folder.path(), size)?;
    let (rounds, messages) = if quick { (1, 10) } else { (5, 20) };
    let rounds = (0..rounds).map(|_| engines.messages(messages)).collect::<Result<Vec<_>, _>>()?;
    let of = |value: fn(&Message) -> f64| median(rounds.iter().map(value).collect());
    let thinking = of(|message| message.thinking) * 1e6;
    let saving = of(|message| message.saving) * 1e6;
    let mut figure =
        |case, value, unit| figures.push(Figure::new(format!("{size} devices, engines: {case}"), value, unit));
    figure("send and receive", thinking, "CPU µs");
    figure("send and receive, in their stores", saving, "CPU µs");
    figure("records written, both sides", of(|message| message.changed), "B/message");
    figure("given to write calls by their stores, both sides", of(|message| message.written), "B/message");
    Ok(thinking)
}

/// Key packages of devices that are leaves and nothing else.
fn ghosts<P: Party>(count: usize) -> anyhow::Result<Vec<P::Card>> {
    (0..count as u32).map(|number| P::new(GHOSTS + number)?.card()).collect()
}
