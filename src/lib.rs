//! The NewtMQ broker: the shell around the core. It owns everything that touches the world: sockets, files, the
//! clock, the command line. The rules of MQTT and of the cluster are in `core/`; none is decided here.
