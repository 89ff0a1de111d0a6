//! The passive side: registers memory, says its name, and answers an initiator's questions.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};

use crate::arena::{Gap, Run};
use crate::arguments::Arguments;
use crate::console::tell;
use crate::exchange::{ANSWER, Answer, Ask, LOOK_EVERY, QUESTION, Question, RemoteBuffer, Reply};
use crate::library::Library;
use crate::side::{Role, Side};

/// Runs until SIGINT or SIGTERM, or until standard input ends if so asked.
///
/// # Errors
/// If the engine cannot be made, or the memory not be had.
pub fn run(library: &Library, arguments: &Arguments) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let side = Side::new(library, arguments, Role::Target)?;
    tell(format!("target: listening on {}", side.engine.local_name()?));
    if arguments.end_with_input {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            // The end of the input, or an error of it, is the end of whoever started this process.
            let _ended = std::io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Ordering::Relaxed);
        });
    }
    while !stop.load(Ordering::Relaxed) {
        for (name, message) in side.engine.take_notes()? {
            if name == QUESTION
                && !arguments.silent
                && let Err(error) = answer(&side, &message)
            {
                tell(format!("a question was not answered: {error:#}"));
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    side.unregister()
}

fn answer(side: &Side<'_>, message: &str) -> Result<()> {
    let question: Question = serde_json::from_str(message).context("not a question")?;
    let reply = match reply(side, &question.ask) {
        Ok(reply) => reply,
        Err(error) => Reply::Failed(format!("{error:#}")),
    };
    let asker = side.engine.open(&question.from)?;
    let answer = serde_json::to_string(&Answer { id: question.id, reply })?;
    side.engine.send_note(asker, ANSWER, &answer)
}

fn reply(side: &Side<'_>, ask: &Ask) -> Result<Reply> {
    match ask {
        Ask::Buffers => {
            let buffers = side.arenas.iter().map(|arena| RemoteBuffer {
                address: arena.address(),
                length_bytes: arena.length_bytes(),
                seed: arena.seed(),
            });
            Ok(Reply::Buffers(buffers.collect()))
        }
        Ask::Verify { placement, slots, seed } => {
            let arena = side.arenas.get(placement.buffer).context("there is no such buffer")?;
            ensure!(*slots <= placement.slots_in(arena.length_bytes()), "there are not that many slots");
            let blocks = (0..*slots).flat_map(|slot| placement.blocks(slot));
            let runs = blocks.map(|block| Run {
                at: block.remote,
                length_bytes: placement.block_bytes,
                seed: *seed,
                from: block.local,
            });
            Ok(Reply::Verdict(arena.check_and_restore(
                placement.window(0..*slots),
                runs.collect(),
                Gap::Own,
            )?))
        }
    }
}
