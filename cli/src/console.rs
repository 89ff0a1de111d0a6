//! The two outputs of the command. A reader who closed the pipe is no failure.

use std::io::{IsTerminal, Write};

/// A line of the result.
pub(crate) fn result(line: impl AsRef<str>) {
    let mut output = std::io::stdout().lock();
    let _closed = writeln!(output, "{}", line.as_ref()).and_then(|()| output.flush());
}

/// A line for the person who watches.
pub(crate) fn tell(line: impl AsRef<str>) {
    let mut output = std::io::stderr().lock();
    let _closed = writeln!(output, "{}", line.as_ref()).and_then(|()| output.flush());
}

/// A colour of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Yellow,
    Green,
}

/// Whether the result goes to a person's terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// The text in a colour, when `coloured`.
pub(crate) fn paint(text: &str, colour: Colour, coloured: bool) -> String {
    if !coloured {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Red => 31,
        Colour::Yellow => 33,
        Colour::Green => 32,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}
