# SPDX-License-Identifier: GPL-2.0
# The dma-rs devices on x86_64, behind an Intel IOMMU in strict mode.
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
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_IOMMU_SUPPORT=y
CONFIG_INTEL_IOMMU=y
CONFIG_IRQ_REMAP=y''',
			   qemu_arch='x86_64',
			   kernel_path='arch/x86/boot/bzImage',
			   kernel_command_line='console=ttyS0 no_timer_check intel_iommu=on iommu.strict=1',
			   extra_qemu_params=['-machine', 'q35',
					      '-cpu', 'max,la57=off',
					      '-smp', '2',
					      '-device', 'intel-iommu,intremap=on',
					      '-device', 'edu',
					      '-device', 'pci-testdev',
					      '-device', 'e1000,romfile='])
