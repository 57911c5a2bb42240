//! TCP sockets: the system's, or, where all is built with `--cfg simulation`, those of a network that is simulated in this process.
//!
//! Everything that has to do with TCP takes its types from here, and nothing else has to know which they are.

#[cfg(not(simulation))]
pub use tokio::net::{TcpListener, TcpStream, tcp};

#[cfg(simulation)]
pub mod simulated;
#[cfg(simulation)]
pub use simulated::{TcpListener, TcpStream, tcp};
