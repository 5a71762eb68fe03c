use super::*;
use alloc::{vec, vec::Vec};
use std::format;

struct Names;

impl Completions for Names {
    fn each(&self, named: Named, offer: &mut dyn FnMut(&str)) {
        let names: &[&str] = match named {
            Named::Vm => &["linux", "linux-rt", "hello"],
            Named::Vdev => &["pl011", "virtio-blk"],
            Named::File => &["vms/linux.qvmconf", "vms/linux-rt.qvmconf", "hello.qvmconf"],
        };
        names.iter().copied().for_each(offer);
    }
}

/// A VT100, as far as the editor needs one.
#[derive(Default)]
struct Screen {
    rows: Vec<Vec<char>>,
    column: usize,
    bells: usize,
}

impl Screen {
    fn show(&mut self, text: &str) {
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            // Where a line ends that is none of the editor's, or `^C`, is the terminal's business.
            if self.rows.is_empty() || self.column >= 80 && !character.is_control() {
                self.rows.push(vec![]);
                self.column = 0;
            }
            let row = self.rows.last_mut().unwrap();
            match character {
                '\r' => self.column = 0,
                '\n' => self.rows.push(vec![]),
                '\x07' => self.bells += 1,
                '\x1b' => {
                    assert_eq!(characters.next(), Some('['));
                    let sequence: String = characters.by_ref().take_while(char::is_ascii_digit).collect();
                    // The final byte has been taken as well: which one it was shows in the text.
                    match sequence.parse::<usize>() {
                        Ok(2) if self.column == 0 && row.is_empty() => {}
                        Ok(count) => self.column = self.column.checked_sub(count).expect("off the screen"),
                        Err(_) => row.truncate(self.column),
                    }
                }
                character => {
                    assert!(!character.is_control(), "{character:?}");
                    row.resize(row.len().max(self.column + 1), ' ');
                    row[self.column] = character;
                    self.column += 1;
                }
            }
        }
    }

    fn row(&self) -> String {
        self.rows.last().unwrap().iter().collect()
    }
}

struct Session {
    editor: Editor,
    screen: Screen,
    lines: Vec<String>,
}

impl Session {
    fn new() -> Self {
        let mut session = Self { editor: Editor::default(), screen: Screen::default(), lines: vec![] };
        session.prompt();
        session
    }

    fn prompt(&mut self) {
        let mut out = String::new();
        self.editor.prompt(&mut out);
        self.screen.show(&out);
    }

    /// Types this; the line shown and where the cursor is are as they should be after every byte.
    fn press(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        for byte in text.as_ref() {
            let mut out = String::new();
            let line = self.editor.press(*byte, &Names, &mut out);
            assert!(out.len() < 4096, "unbounded");
            self.screen.show(&out);
            if let Some(line) = line {
                self.lines.push(line);
                self.prompt();
            }
            let Editor { left, right, first, .. } = &self.editor;
            let text: String = left.chars().chain(right.chars()).skip(*first).take(ROOM).collect();
            assert_eq!(self.screen.row(), format!("{PROMPT}{text}"));
            assert_eq!(self.screen.column, PROMPT.len() + left.chars().count() - first);
            assert!(left.len() + right.len() <= LONGEST);
        }
        self
    }

    fn line(&mut self) -> String {
        self.press("\r").lines.pop().unwrap()
    }
}

fn typed(text: impl AsRef<[u8]>) -> String {
    Session::new().press(text).line()
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn text_is_edited_as_in_other_shells() {
    assert_eq!(typed("pidin"), "pidin");
    assert_eq!(typed("pidn\x1b[Di"), "pidin");
    assert_eq!(typed("idin\x1b[Hp\x1b[F x"), "pidin x");
    assert_eq!(typed("idin\x01p\x05 x"), "pidin x");
    assert_eq!(typed("pidinx\x7f"), "pidin");
    assert_eq!(typed("xpidin\x1b[1~\x1b[3~"), "pidin");
    assert_eq!(typed("xpidin\x1bOH\x04\x1bOFx\x08"), "pidin");
    assert_eq!(typed("slay linux\x17hello"), "slay hello");
    assert_eq!(typed("slay linux  \x17hello"), "slay hello");
    assert_eq!(typed("slay linux\x02\x02\x0b"), "slay lin");
    assert_eq!(typed("slay linux\x02\x02\x15"), "ux");
    assert_eq!(typed("a\x1b[1;5Db"), "ba");
    assert_eq!(typed("\x7f\x04\x02\x06\x17\x0b\x15"), "");
}

#[test]
fn text_beyond_ascii_is_whole_characters() {
    assert_eq!(typed("grün\x7f\x7fo"), "gro");
    assert_eq!(typed("ü€😀\x02\x02\x04"), "ü😀");
    assert_eq!(typed(b"a\xff\xc3\xc3\xbc\x80b\xe2\x82c"), "aübc");
    assert_eq!(typed("a\u{9b}b"), "ab", "a control character");
}

#[test]
fn sequences_that_mean_nothing_are_swallowed() {
    assert_eq!(typed("a\x1b[15~\x1bx\x1b[?25h\x1bOP\x1b[99999999999Zb"), "ab");
    assert_eq!(typed("a\x1b\x1b[Db"), "ba");
    assert_eq!(typed("a\x1b[3\x15b"), "b", "a control character ends one and is itself");
    assert_eq!(typed("a\0\x19\x1cb"), "ab");
}

#[test]
fn a_paste_of_several_lines_is_several_lines() {
    let mut session = Session::new();
    session.press("one\r\ntwo\nthree\r\r\nfour");
    assert_eq!(session.lines, ["one", "two", "three", ""]);
    assert_eq!(session.line(), "four");
}

#[test]
#[cfg_attr(miri, ignore = "a thousand keys on a long line take Miri minutes")]
fn a_long_line_scrolls_and_a_longer_one_is_refused() {
    let mut session = Session::new();
    let long: String = ('a'..='z').cycle().take(LONGEST).collect();
    session.press(&long);
    assert_eq!(session.screen.bells, 0);
    session.press("x");
    assert_eq!(session.screen.bells, 1);
    session.press("\x01");
    assert_eq!(session.screen.row(), format!("{PROMPT}{}", &long[..ROOM]));
    session.press("\x1b[C".repeat(LONGEST)).press("\x1b[D".repeat(200)).press("\x7f\x0b");
    assert_eq!(session.line(), long[..LONGEST - 201]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn history_goes_back_and_forth_and_keeps_what_was_being_typed() {
    let mut session = Session::new();
    session.press("one\rtwo\rtwo\r  \rdraft\x1b[A");
    assert_eq!(session.editor.left, "two");
    session.press("\x10");
    assert_eq!(session.editor.left, "one");
    session.press("\x10");
    assert_eq!((session.editor.left.as_str(), session.screen.bells), ("one", 1));
    session.press("\x0e!\x1b[B");
    assert_eq!(session.editor.left, "draft");
    session.press("\x0e");
    assert_eq!((session.line().as_str(), session.screen.bells), ("draft", 2));
    for n in 0..40 {
        session.press(format!("{n}\r"));
    }
    session.press("\x10".repeat(40));
    assert_eq!((session.editor.left.as_str(), session.editor.history.len()), ("8", HISTORY));
}

#[test]
fn a_line_can_be_given_up_and_the_screen_cleared() {
    let mut session = Session::new();
    session.press("oops\x03");
    assert_eq!(session.screen.rows[0].iter().collect::<String>(), format!("{PROMPT}oops^C"));
    assert_eq!(session.line(), "");
    let mut out = String::new();
    session.press("abc");
    session.editor.press(0x0c, &Names, &mut out);
    assert_eq!(out, format!("\x1b[H\x1b[2J\r{PROMPT}abc\x1b[K"));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn words_are_completed_by_what_the_table_says_comes_next() {
    assert_eq!(typed("sla\t"), "slay ");
    assert_eq!(typed("slay l\t"), "slay linux");
    assert_eq!(typed("slay -\tSIGT\thel\t"), "slay -s SIGTERM hello ");
    assert_eq!(typed("slay -s SIGUSR1 a linux-\t"), "slay -s SIGUSR1 a linux-rt ");
    assert_eq!(typed("slay -s Q\tlinux-\t"), "slay -s QUIT linux-rt ");
    assert_eq!(typed("pidin t\t"), "pidin threads ");
    assert_eq!(typed("pidin l\t-\t"), "pidin linux-rt ");
    assert_eq!(typed("qvm \th\t"), "qvm @hello.qvmconf ");
    assert_eq!(typed("qvm @/v\t.\t"), "qvm @/vms/linux.qvmconf ");
    assert_eq!(typed("use v\t"), "use virtio-blk ");
    assert_eq!(typed("help slo\t"), "help slog2info ");
    assert_eq!(typed("log d\t"), "log debug ");
    assert_eq!(typed("shutdown \t"), "shutdown -f ");
    assert_eq!(typed("sl\x02la\t"), "slay l", "what is behind the cursor stays");
}

#[test]
fn what_is_ambiguous_rings_then_is_listed() {
    let mut session = Session::new();
    session.press("slay li\t");
    assert_eq!((session.editor.left.as_str(), session.screen.bells), ("slay linux", 0));
    session.press("\t");
    assert_eq!((session.screen.rows.len(), session.screen.bells), (1, 1));
    session.press("\t");
    let rows: Vec<String> = session.screen.rows.iter().map(|row| row.iter().collect()).collect();
    assert_eq!(rows, [&format!("{PROMPT}slay linux"), "linux  linux-rt", &format!("{PROMPT}slay linux")]);
    session.press("x\t");
    assert_eq!(session.screen.bells, 2, "there is nothing");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn whatever_is_typed_the_screen_shows_the_line() {
    let keys = [
        "a",
        "b ",
        "ü",
        "slay ",
        "\t",
        "\x1b[D",
        "\x1b[C",
        "\x1b[A",
        "\x1b[B",
        "\x7f",
        "\x01",
        "\x05",
        "\x04",
        "\x17",
        "\x0b",
        "\x15",
        "\x03",
        "\r",
        "qvm @",
        "\x1b[3~",
        "xxxxxxxxxxxxxxxxxxxx",
    ];
    let mut session = Session::new();
    let mut random = 1_u32;
    for _ in 0..20_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        session.press(keys[(random >> 16) as usize % keys.len()]);
        session.screen.rows.drain(..session.screen.rows.len() - 1);
    }
}
