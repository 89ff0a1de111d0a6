//! One batch: its tasks, how many submissions run, and who waits for them.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::batch::task::{Task, TaskStatus};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, spin_loop};

/// Largest capacity of one batch; a task takes 32 bytes.
pub const MAX_TASKS_PER_BATCH: u32 = 1 << 20;

/// Looks before a wait goes to sleep: some microseconds, the time in which a small local copy is over.
const SPINS: u32 = if cfg!(all(loom, test)) { 0 } else { 200 };

/// The same for who has helped: others are about to end their last piece, some tens of microseconds at most, and to
/// be woken takes longer than that.
const SPINS_AFTER_HELP: u32 = if cfg!(all(loom, test)) { 0 } else { 2000 };

/// Longest single wait for what a defect left running; there is no bound to all of them together.
const QUIET_LOOK: Duration = Duration::from_secs(1);

/// Top bit of [`Batch::submitted`]: freed, no more submissions.
const CLOSED: u32 = 1 << 31;

/// Lowest bit of [`Batch::running`]: somebody sleeps or a hook is set, so the last one must take the lock.
const ATTENTION: u64 = 1;
/// One running submission in [`Batch::running`].
const ONE: u64 = 2;

/// Why a batch is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The caller cancelled.
    Cancelled,
    /// A wait came to its deadline.
    Timeout,
}

impl Stop {
    /// The code that the tasks fail with.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Cancelled => Code::Cancelled,
            Self::Timeout => Code::Timeout,
        }
    }
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Every task is terminal, and now counts as observed.
    Finished(Outcome),
    /// The deadline came first.
    Late,
    /// A transport has said that it cannot make quiet what it started, with its reason.
    Stuck(Error),
}

/// What became of a finished batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Number of tasks, all of them terminal.
    pub tasks: u32,
    /// How many of them failed.
    pub failed: u32,
}

impl Outcome {
    /// Whether every task completed.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.failed == 0
    }
}

/// A count over all tasks at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tasks submitted.
    pub submitted: u32,
    /// Of these, completed.
    pub completed: u32,
    /// Of these, failed.
    pub failed: u32,
    /// Bytes moved.
    pub moved_bytes: u64,
}

/// Called once when everything submitted so far is terminal; on the thread that finished the last task.
type Hook = Box<dyn FnOnce(Outcome) + Send>;

/// Work of a batch that who waits for it may do meanwhile, instead of being woken when others have done it.
pub trait Help: Send + Sync {
    /// Whether it sleeps until somebody else has done something. Then it comes last: meanwhile nothing else is done
    /// that who waits has promised to do.
    fn may_sleep(&self) -> bool;

    /// Does what there is to do for the batch, until nothing is left. What it waits for, it waits for until `deadline`
    /// at most.
    fn help(&self, batch: &Batch, deadline: Deadline);
}

/// Most offers of help that a batch keeps.
pub const MAX_HELP: usize = 4;

#[derive(Default)]
struct Gate {
    stuck: Option<Error>,
    hook: Option<Hook>,
    help: Vec<Weak<dyn Help>>,
}

/// A batch of tasks; see the module.
pub struct Batch {
    tasks: Box<[Task]>,
    /// Tasks reserved, and [`CLOSED`].
    submitted: AtomicU32,
    /// Running submissions times two, and [`ATTENTION`].
    running: AtomicU64,
    failed: AtomicU32,
    /// Tasks that a finished wait has seen terminal: all below this number. A poll marks the task itself.
    waited_for: AtomicU32,
    stop: AtomicU8,
    /// Whether somebody is sure to wait, and has not begun.
    awaited: AtomicU8,
    errors: Mutex<BTreeMap<u32, Arc<Error>>>,
    gate: Mutex<Gate>,
    wake: Condvar,
}

impl Batch {
    /// A batch with room for `capacity` tasks; none is legal.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] above [`MAX_TASKS_PER_BATCH`], [`Code::Memory`] when there is no memory.
    pub fn new(capacity: u32) -> Result<Self> {
        if capacity > MAX_TASKS_PER_BATCH {
            return Err(Error::new(
                Code::TooManyRequests,
                Stage::Submit,
                format!("a batch of {capacity} tasks is asked for, {MAX_TASKS_PER_BATCH} is the most"),
            ));
        }
        let memory = |_| Error::new(Code::Memory, Stage::Submit, format!("no memory for {capacity} tasks"));
        let mut tasks = Vec::new();
        tasks.try_reserve_exact(usize::try_from(capacity).unwrap_or(usize::MAX)).map_err(memory)?;
        tasks.extend((0..capacity).map(|_| Task::new()));
        Ok(Self {
            tasks: tasks.into_boxed_slice(),
            submitted: AtomicU32::new(0),
            running: AtomicU64::new(0),
            failed: AtomicU32::new(0),
            waited_for: AtomicU32::new(0),
            stop: AtomicU8::new(0),
            awaited: AtomicU8::new(0),
            errors: Mutex::new(BTreeMap::new()),
            gate: Mutex::new(Gate::default()),
            wake: Condvar::new(),
        })
    }

    /// Number of tasks that it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.tasks.len()
    }

    /// Number of tasks submitted so far.
    #[must_use]
    pub fn submitted(&self) -> u32 {
        self.submitted.load(Ordering::Acquire) & !CLOSED
    }

    /// Whether everything submitted so far is terminal.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.running.load(Ordering::Acquire) < ONE
    }

    /// Status of one task and the bytes it has moved. A terminal status seen here counts as observed.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when no such task was submitted.
    pub fn poll(&self, task: u32) -> Result<(TaskStatus, u64)> {
        Ok(self.known(task)?.observe())
    }

    /// Counts all tasks, without counting as an observation. Takes time in proportion to the tasks.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let submitted = self.submitted();
        let mut progress = Progress { submitted, ..Progress::default() };
        for task in self.tasks.iter().take(usize::try_from(submitted).unwrap_or(usize::MAX)) {
            let (status, moved_bytes) = task.peek();
            progress.moved_bytes = progress.moved_bytes.saturating_add(moved_bytes);
            match status {
                TaskStatus::Waiting => {}
                TaskStatus::Completed => progress.completed += 1,
                TaskStatus::Failed => progress.failed += 1,
            }
        }
        progress
    }

    /// Why a task failed; the first reason when there were several.
    #[must_use]
    pub fn error(&self, task: u32) -> Option<Error> {
        self.errors.lock().get(&task).map(|error| Error::clone(error))
    }

    /// Why the batch failed: the reason of the first task, in order, that has one.
    #[must_use]
    pub fn first_error(&self) -> Option<Error> {
        self.errors.lock().first_key_value().map(|(_, error)| Error::clone(error))
    }

    /// Sleeps until everything submitted so far is terminal, until a transport gives up, or until `deadline`.
    ///
    /// Looks for a few microseconds first, then uses no processor time. A [`Waited::Stuck`] is given to one
    /// wait only, so that the next one sleeps again.
    pub fn wait(&self, deadline: Deadline) -> Waited {
        // The number of tasks is read first: a submission counts as running before it reserves any, so none
        // of the tasks counted here can be unfinished when nothing runs.
        let tasks = self.submitted();
        if self.is_finished() {
            return self.finished(tasks);
        }
        let help = {
            let mut gate = self.gate.lock();
            // What is offered from here on finds nobody.
            self.awaited.store(0, Ordering::Release);
            std::mem::take(&mut gate.help)
        };
        for sleeps in [false, true] {
            let helpers = help.iter().filter_map(Weak::upgrade);
            helpers
                .filter(|helper| helper.may_sleep() == sleeps)
                .for_each(|helper| helper.help(self, deadline));
        }
        for _ in 0..if help.is_empty() { SPINS } else { SPINS_AFTER_HELP } {
            let tasks = self.submitted();
            if self.is_finished() {
                return self.finished(tasks);
            }
            spin_loop();
        }
        let mut gate = self.gate.lock();
        loop {
            let tasks = self.submitted();
            if self.running.fetch_or(ATTENTION, Ordering::AcqRel) < ONE {
                drop(gate);
                return self.finished(tasks);
            }
            if let Some(error) = gate.stuck.take() {
                return Waited::Stuck(error);
            }
            if deadline.expired() {
                return Waited::Late;
            }
            self.wake.wait_until(&mut gate, deadline.at());
        }
    }

    /// The caller will wait for the batch as soon as he has submitted: a transport that has him for help needs no
    /// thread of its own for the beginning.
    pub fn expect_wait(&self) {
        self.awaited.store(1, Ordering::Release);
    }

    /// Offers work to who waits. True when somebody is sure to take it: then nobody else needs to be woken for it.
    pub fn offer(&self, work: Weak<dyn Help>) -> bool {
        let mut gate = self.gate.lock();
        if gate.help.len() >= MAX_HELP {
            return false;
        }
        gate.help.push(work);
        self.awaited.load(Ordering::Acquire) != 0
    }

    fn finished(&self, tasks: u32) -> Waited {
        self.waited_for.fetch_max(tasks, Ordering::AcqRel);
        Waited::Finished(self.outcome(tasks))
    }

    fn outcome(&self, tasks: u32) -> Outcome {
        Outcome { tasks, failed: self.failed.load(Ordering::Acquire) }
    }

    /// Has `hook` called once when everything submitted so far is terminal: at once when that is so already,
    /// else on the thread that finishes the last task. The hook must not block; it replaces an earlier one.
    pub fn when_finished(&self, hook: impl FnOnce(Outcome) + Send + 'static) {
        let mut gate = self.gate.lock();
        let tasks = self.submitted();
        if self.running.fetch_or(ATTENTION, Ordering::AcqRel) < ONE {
            drop(gate);
            hook(self.outcome(tasks));
        } else {
            gate.hook = Some(Box::new(hook));
        }
    }

    /// Asks the transports to stop; the first reason stays. What runs becomes terminal when it is quiet.
    pub fn stop(&self, reason: Stop) {
        let code = match reason {
            Stop::Cancelled => 1,
            Stop::Timeout => 2,
        };
        let _earlier = self.stop.compare_exchange(0, code, Ordering::Release, Ordering::Relaxed);
    }

    /// Runs `work`, which starts what is in the batch and waits for it. When that meets a defect, all of it is stopped
    /// and made quiet before the defect goes on: memory that it is about may be let go of then.
    ///
    /// # Panics
    /// If `work` does.
    pub fn quiet_after<T>(&self, work: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|defect| {
            self.stop(Stop::Cancelled);
            while !matches!(self.wait(Deadline::after(QUIET_LOOK)), Waited::Finished(_)) {}
            resume_unwind(defect)
        })
    }

    /// Why the batch is to stop, if it is.
    #[must_use]
    pub fn stopping(&self) -> Option<Stop> {
        match self.stop.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Stop::Cancelled),
            _ => Some(Stop::Timeout),
        }
    }

    /// Closes the batch for good.
    ///
    /// # Errors
    /// [`Code::Busy`] while a task was not observed finished, [`Code::StaleHandle`] when it was closed before.
    pub(super) fn close(&self) -> Result<()> {
        let submitted = self.submitted.load(Ordering::Acquire);
        if submitted & CLOSED != 0 {
            return Err(stale());
        }
        let waited_for = self.waited_for.load(Ordering::Acquire);
        if let Some(task) =
            (waited_for..submitted).find(|&task| !self.task(task).is_some_and(Task::is_observed))
        {
            return Err(Error::new(
                Code::Busy,
                Stage::Submit,
                format!("task {task} of {submitted} was not seen finished"),
            )
            .advice("poll every task, or wait for the batch, before freeing it"));
        }
        // A submission that came meanwhile has changed the number, and its tasks are not observed.
        self.submitted
            .compare_exchange(submitted, submitted | CLOSED, Ordering::AcqRel, Ordering::Relaxed)
            .map(drop)
            .map_err(|now| {
                if now & CLOSED != 0 {
                    stale()
                } else {
                    Error::new(Code::Busy, Stage::Submit, "the batch is being submitted to")
                }
            })
    }

    /// Closes the batch although tasks may run; they go on and nobody will ask.
    pub(super) fn abandon(&self) {
        self.submitted.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Reserves the next `count` tasks and returns the first one's number.
    pub(super) fn reserve(&self, count: u32) -> Result<u32> {
        let reserved = self.submitted.fetch_update(Ordering::AcqRel, Ordering::Acquire, |submitted| {
            if submitted & CLOSED != 0 {
                return None;
            }
            submitted
                .checked_add(count)
                .filter(|&sum| usize::try_from(sum).is_ok_and(|sum| sum <= self.capacity()))
        });
        reserved.map_err(|submitted| {
            if submitted & CLOSED != 0 {
                return stale();
            }
            let capacity = self.capacity();
            Error::new(
                Code::TooManyRequests,
                Stage::Submit,
                format!("{count} requests do not fit a batch of {capacity} that has {submitted}"),
            )
        })
    }

    pub(super) fn task(&self, task: u32) -> Option<&Task> {
        self.tasks.get(usize::try_from(task).ok()?)
    }

    fn known(&self, task: u32) -> Result<&Task> {
        let submitted = self.submitted();
        self.task(task).filter(|_| task < submitted).ok_or_else(|| {
            Error::new(
                Code::InvalidArgument,
                Stage::Submit,
                format!("task {task} of {submitted} does not exist"),
            )
        })
    }

    /// A submission begins; before it reserves its tasks.
    pub(super) fn submission_started(&self) {
        self.running.fetch_add(ONE, Ordering::AcqRel);
    }

    /// The last task of a submission is terminal: wakes who waits, if it was the last submission.
    pub(super) fn submission_finished(&self) {
        let before = self.running.fetch_sub(ONE, Ordering::AcqRel);
        if before != ONE | ATTENTION {
            return; // others run, or nobody has asked to be told
        }
        let mut gate = self.gate.lock();
        let tasks = self.submitted();
        if self.running.load(Ordering::Acquire) >= ONE {
            return; // a new submission has begun; its end tells
        }
        self.running.fetch_and(!ATTENTION, Ordering::AcqRel);
        gate.stuck = None;
        let hook = gate.hook.take();
        self.wake.notify_all();
        drop(gate);
        if let Some(hook) = hook {
            hook(self.outcome(tasks));
        }
    }

    /// Notes why a task fails; before its state says so.
    pub(super) fn note_error(&self, task: u32, error: &Arc<Error>) {
        self.errors.lock().entry(task).or_insert_with(|| Arc::clone(error));
    }

    pub(super) fn task_failed(&self) {
        self.failed.fetch_add(1, Ordering::AcqRel);
    }

    /// Tells who waits that this does not end by itself.
    pub(super) fn report_stuck(&self, error: Error) {
        let mut gate = self.gate.lock();
        gate.stuck = Some(error);
        self.wake.notify_all();
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("capacity", &self.capacity())
            .field("progress", &self.progress())
            .finish()
    }
}

fn stale() -> Error {
    Error::new(Code::StaleHandle, Stage::Submit, "the batch was freed")
}
