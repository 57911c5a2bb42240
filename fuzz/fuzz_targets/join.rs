//! Whatever a join line looks like, it is read or refused in peace; what is read is written the same but for the ports' leading
//! zeros; and no error shows a secret, wherever it stands.
//!
//! Input: the line. Each `!` in it stands for a secret.

#![no_main]

use libfuzzer_sys::fuzz_target;
use relayserver_transport::Join;

const SECRET: &str = "QJ7xZ_2kVw9-Lm4Tn8Rb1Yc6Hd3Gf5Ps0Ua7Ei2Oo9M";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match text.replace('!', SECRET).parse::<Join>() {
        Ok(join) => {
            let written = join.expose();
            let again: Join = written.parse().expect("what is written can be read");
            assert_eq!(again.expose(), written);
            assert_eq!((again.addresses(), again.pins()), (join.addresses(), join.pins()));
            assert!(!join.addresses().is_empty());
            assert_eq!(format!("{:?}", join.token()), format!("rls_{}.***", join.token().id()));
        }
        Err(error) => {
            let shown = format!("{error} {error:?} {error:#?}");
            assert!(hides_secret(&shown), "{shown}");
        }
    }
});

/// No eight characters in a row of it are shown.
fn hides_secret(shown: &str) -> bool {
    (0..=SECRET.len() - 8).all(|at| !shown.contains(&SECRET[at..at + 8]))
}
