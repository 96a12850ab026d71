# SPDX-License-Identifier: GPL-2.0
# The dma-rs devices on x86_64; every mapping bounces.
# Made by tools/testing/dma-rs/qemu_configs.py: don't edit.

from ..qemu_config import QemuArchParams

QEMU_ARCH = QemuArchParams(linux_arch='x86_64',
			   kconfig='''
CONFIG_EXPERT=y
CONFIG_SMP=y
CONFIG_RUST=y
CONFIG_PCI=y
CONFIG_PCI_MSI=y
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y''',
			   qemu_arch='x86_64',
			   kernel_path='arch/x86/boot/bzImage',
			   kernel_command_line='console=ttyS0 no_timer_check swiotlb=force dma_rs_edu.dma_bits=32',
			   extra_qemu_params=['-machine', 'q35',
					      '-cpu', 'max,la57=off',
					      '-smp', '2',
					      '-device', 'edu,dma_mask=0xffffffff',
					      '-device', 'pci-testdev',
					      '-device', 'e1000,romfile='])
